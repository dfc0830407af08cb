import numpy as np
import zarrtrace as zt
def test_it(place):
    tr = place.create(chains=2, tune=5, draws=7, posterior={"mu": zt.Var(), "v": zt.Var(shape=3), "s": zt.Var(dtype=str)}, observed_data={"y": [1., 2.]})
    for c in range(2):
        with tr.writer(c) as w:
            for i in range(12):
                w.record({"mu": 10.0*c+i, "v": [i, i, c], "s": str(i)})
    assert tr.recorded.tolist() == [12, 12]
    assert tr.posterior.mu.values.tolist() == [[5+i for i in range(7)], [15+i for i in range(7)]]
    tr.finish()
    assert place.open().posterior.mu.values.tolist() == [[5+i for i in range(7)], [15+i for i in range(7)]]
    assert place.open().to_datatree().posterior.s.values.tolist()[0] == [str(5+i) for i in range(7)]
