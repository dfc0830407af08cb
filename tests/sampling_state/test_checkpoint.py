"""Promise 3: a run continues where it stopped, from a state kept bit for bit and without pickle."""

from __future__ import annotations

import dataclasses
import json
import math
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from conftest import Place
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import zarrtrace as zt
from zarrtrace.reading.rows import RowReader
from zarrtrace.sampling_state import journal_format as journallayout
from zarrtrace.sampling_state.state_text import decode_state, encode_state

numbers = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(2**200), max_value=2**200),
    st.floats(),
    st.complex_numbers(),
    st.text(),
    st.binary(),
)
by_rows = npst.arrays(
    st.sampled_from(["f8", "f4", "f2", "i8", "u1", "?", "c16", ">f8", "M8[ns]", "U3"]),
    npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
arrays = st.one_of(
    by_rows,
    by_rows.map(np.asfortranarray),
    st.builds(np.float64, st.floats()),
    st.builds(np.int32, st.integers(-(2**31), 2**31 - 1)),
)
states = st.recursive(
    numbers | arrays,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.text(max_size=4), inner, max_size=4),
        st.dictionaries(st.integers() | st.tuples(st.text()), inner, max_size=3),
    ),
    max_leaves=12,
)


def identical(one: Any, other: Any) -> bool:
    """Same type, same structure, same bits."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray | np.generic):
        little = one.dtype.newbyteorder("<")
        return (
            one.dtype.newbyteorder("=") == other.dtype.newbyteorder("=")
            and one.shape == other.shape
            and one.astype(little).tobytes() == other.astype(little).tobytes()
            and one.flags.fnc == other.flags.fnc
        )
    if isinstance(one, dict):
        return list(one) == list(other) and all(identical(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(identical, one, other))
    if isinstance(one, float):
        return struct.pack("<d", one) == struct.pack("<d", other)
    if isinstance(one, complex):
        return identical(one.real, other.real) and identical(one.imag, other.imag)
    return bool(one == other)


@given(states)
def test_any_state_comes_back_bit_for_bit(state: Any) -> None:
    assert identical(decode_state(json.loads(encode_state(state))), state)


def test_arrays_lie_in_memory_as_they_did() -> None:
    rows, columns = (
        np.arange(24.0).reshape(2, 3, 4),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    )
    found = decode_state(json.loads(encode_state([rows, columns, columns.astype(">f4")])))
    assert [array.strides for array in found] == [rows.strides, (8, 16), (4, 8)]
    assert all(array.flags.writeable for array in found)
    assert np.array_equal(found[1], columns)
    # As states were written before there was an order, and as they are read where there is none.
    text = encode_state(columns)
    assert encode_state(rows[0]).count("order") == 0
    assert np.array_equal(decode_state(json.loads(text.replace("order", "other"))), columns)


def test_the_state_of_every_bit_generator_comes_back() -> None:
    for kind in (np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox):
        generator = np.random.Generator(kind(3))
        generator.normal(size=5)
        state = decode_state(json.loads(encode_state(generator.bit_generator.state)))
        other = np.random.Generator(kind(0))
        other.bit_generator.state = state
        assert np.array_equal(generator.normal(size=9), other.normal(size=9))


class Adaptation(NamedTuple):
    step_size: float
    window: tuple[int, int]


@dataclasses.dataclass
class Sampler:
    position: np.ndarray
    adaptation: Adaptation
    history: list[Adaptation]


def test_a_template_gives_its_namedtuples_and_dataclasses_back() -> None:
    state = Sampler(np.arange(3.0), Adaptation(0.1, (1, 2)), [Adaptation(0.2, (3, 4))])
    content = json.loads(encode_state({"sampler": state}))

    plain = decode_state(content)
    assert plain["sampler"]["adaptation"] == {"step_size": 0.1, "window": (1, 2)}

    empty = Sampler(np.zeros(0), Adaptation(0, (0, 0)), [Adaptation(0, (0, 0))])
    again = decode_state(content, like={"sampler": empty})["sampler"]
    assert isinstance(again, Sampler)
    assert again.adaptation == state.adaptation
    assert again.history == state.history
    assert np.array_equal(again.position, state.position)


def test_a_template_that_does_not_fit_is_named(memory: Place) -> None:
    trace = memory.create(chains=1, draws=9, posterior={"mu": zt.Var()})
    with trace.writer(0) as writer:
        writer.checkpoint({"a": Adaptation(0.1, (1, 2))})
    with trace.writer(0) as writer:
        with pytest.raises(zt.errors.InvalidInputError, match=r"state\['a'\] was a Adaptation"):
            writer.resume(like={"a": Sampler(np.zeros(1), Adaptation(0, (0, 0)), [])})
        assert writer.resume(like={"a": Adaptation(0, (0, 0))})[1] == {"a": Adaptation(0.1, (1, 2))}


def test_arrays_of_other_libraries_come_as_numpy() -> None:
    class Tensor:
        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            return np.array([1.5, 2.5], dtype="float32")

    found = decode_state(json.loads(encode_state([Tensor()])))
    assert identical(found, [np.array([1.5, 2.5], dtype="float32")])


@pytest.mark.parametrize(
    ("state", "place"),
    [
        ({"a": [1, {2, 3}]}, r"state\['a'\]\[1\]"),
        ({"f": math.sin}, r"state\['f'\]"),
        ({"o": np.array([None])}, r"state\['o'\].*object"),
        ({"r": np.zeros(2, dtype="f8,i4")}, r"state\['r'\]"),
    ],
)
def test_what_cannot_be_stored_is_named_and_the_checkpoint_before_stays(
    memory: Place, state: Any, place: str
) -> None:
    trace = memory.create(chains=1, draws=9, posterior={"mu": zt.Var()})
    with trace.writer(0) as writer:
        writer.record({"mu": 1})
        writer.checkpoint("good")
        with pytest.raises(zt.errors.InvalidInputError, match=place):
            writer.checkpoint(state)
    with trace.writer(0) as writer:
        assert writer.resume() == (1, "good")


def test_a_state_that_contains_itself_is_refused() -> None:
    state: list[Any] = []
    state.append(state)
    with pytest.raises(zt.errors.InvalidInputError, match="contains itself"):
        encode_state(state)


# Resuming -------------------------------------------------------------------------------------


def definition(**more: Any) -> dict[str, Any]:
    return {
        "chains": 2,
        "tune": 10,
        "draws": 20,
        "posterior": {
            "mu": zt.Var(draws_per_chunk=4),
            "nu": zt.Var(shape=2, draws_per_chunk=7),
            "label": zt.Var(dtype=str, draws_per_chunk=5),
        },
        "sample_stats": {"lp": zt.Var()},
        **more,
    }


def draw(i: int) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"mu": i, "nu": [i, -i], "label": f"draw {i}"}, {"lp": i / 2}


def is_right(trace: zt.Trace, chain: int = 0, warmup: int = 10) -> bool:
    posterior = trace.dataset("posterior", chains=chain)
    numbers = np.arange(warmup, warmup + posterior.sizes["draw"])
    labels = [f"draw {i}" for i in numbers]
    stats = trace.dataset("sample_stats", chains=chain)
    return (
        np.array_equal(posterior.mu.values[0], numbers)
        and np.array_equal(posterior.nu.values[0], np.stack([numbers, -numbers], 1))
        and posterior.label.values[0].tolist() == labels
        and np.array_equal(stats.lp.values[0], numbers / 2)
    )


@pytest.mark.once("newest")
@pytest.mark.parametrize("stop", [12, 13, 17, 20, 24, 28, 29])
@pytest.mark.parametrize("checkpoint", [0, 1, 8, 11, 12])
def test_resume_drops_the_draws_after_the_checkpoint(
    fast_place: Place, checkpoint: int, stop: int
) -> None:
    trace = fast_place.create(**definition())
    with trace.writer(0) as writer:
        if checkpoint == 0:
            writer.checkpoint({"at": 0})
        for i in range(stop):
            writer.record(*draw(i))
            if i + 1 == checkpoint:
                writer.checkpoint({"at": checkpoint})
    assert trace.recorded[0] == stop
    with trace.writer(0) as writer:
        assert writer.resume() == (checkpoint, {"at": checkpoint})
        assert writer.recorded == checkpoint
        assert fast_place.open().recorded[0] == checkpoint
        for i in range(checkpoint, 30):
            writer.record(*draw(i))
    assert trace.recorded[0] == 30
    assert is_right(fast_place.open())


def test_without_a_checkpoint_it_continues_after_the_last_draw(fast_place: Place) -> None:
    trace = fast_place.create(**definition())
    for stop in (3, 4, 11, 19, 30):
        with trace.writer(1) as writer:
            start, state = writer.resume()
            assert state is None
            for i in range(start, stop):
                writer.record(*draw(i))
        assert trace.recorded.tolist() == [0, stop]
    assert is_right(trace, 1)


def test_draws_from_before_must_be_acknowledged(fast_place: Place) -> None:
    trace = fast_place.create(**definition())
    with trace.writer(0) as writer:
        writer.record(*draw(0))
    with trace.writer(0) as writer:
        for attempt in (lambda: writer.record(*draw(1)), lambda: writer.checkpoint(None)):
            with pytest.raises(zt.errors.NotResumedError, match=r"resume\(\)") as caught:
                attempt()
            assert caught.value.chain == 0
        assert writer.recorded == 1


def test_a_complete_chain_is_never_shortened(fast_place: Place) -> None:
    trace = fast_place.create(**definition())
    with trace.writer(0) as writer:
        for i in range(30):
            writer.record(*draw(i))
            if i == 20:
                writer.checkpoint("at 21")
    with trace.writer(0) as writer:
        assert writer.resume() == (30, None)
    assert trace.recorded[0] == 30


def record_and_stop(trace: zt.Trace, draws: int, checkpoint: int) -> None:
    with trace.writer(0) as writer:
        for i in range(draws):
            writer.record(*draw(i))
            if i + 1 == checkpoint:
                writer.checkpoint(f"at {checkpoint}")


@pytest.mark.once("newest")
@pytest.mark.parametrize("variable", ["mu", "nu", "label"])
@pytest.mark.parametrize(
    ("kind", "more"),
    # Only a directory has a journal to go without.
    [("memory", {}), ("directory", {}), ("directory", {"journal": False}), ("objects", {})],
    ids=["memory", "directory", "directory, no journal", "objects"],
)
def test_a_view_from_before_the_resume_says_that_its_draws_are_gone(
    kind: str, more: dict[str, Any], variable: str, request: pytest.FixtureRequest
) -> None:
    trace = request.getfixturevalue(kind).create(**definition(**more))
    record_and_stop(trace, 25, checkpoint=13)
    view = trace.dataset("posterior", chains=0)
    with trace.writer(0) as writer:
        writer.resume()
        writer.record(*draw(13))
        # Each chunk that is partly filled is written again, and its end is blank now.
        writer.flush()
        with pytest.raises(zt.TraceError, match=r"went back to its checkpoint at draw 1[34]"):
            view[variable].load()
        writer.record_block(
            {
                "mu": range(14, 25),
                "nu": [[i, -i] for i in range(14, 25)],
                "label": [f"draw {i}" for i in range(14, 25)],
            },
            {"lp": np.arange(14, 25) / 2},
        )
        writer.flush()
        assert is_right(trace)
        assert view[variable].sizes["draw"] == 15
        # Its journal, or its last rows, say that the chain went back: others may be drawn again.
        with pytest.raises(zt.errors.StaleViewError, match="at draw 13"):
            view[variable].load()


@pytest.mark.parametrize("variable", ["mu", "nu", "label"])
def test_a_chain_that_goes_back_while_a_chunk_is_read(
    directory: Place, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader has seen the count of before, and finds the chunk of after."""
    trace = directory.create(**definition())
    record_and_stop(trace, 25, checkpoint=13)
    view = trace.dataset("posterior", chains=0)
    read = RowReader.stored_chunk
    went_back = False

    def go_back_first(*arguments: Any) -> Any:
        nonlocal went_back
        if not went_back:
            went_back = True
            with trace.writer(0) as writer:
                writer.resume()
                writer.record(*draw(13))
        return read(*arguments)

    monkeypatch.setattr(RowReader, "stored_chunk", go_back_first)
    with pytest.raises(zt.TraceError, match="went back to its checkpoint at draw 14"):
        view[variable].load()


def test_the_checkpoint_survives_a_writer_that_never_closed(directory: Place) -> None:
    trace = directory.create(**definition())
    writer = trace.writer(0)
    writer.record(*draw(0))
    writer.checkpoint({"rng": np.random.default_rng(1).bit_generator.state})
    writer._release()
    with trace.writer(0) as again:
        draws, state = again.resume()
    assert draws == 1
    assert state["rng"] == np.random.default_rng(1).bit_generator.state


SMALL, LARGE = {"step": 1.5}, {"position": np.arange(5000.0)}  # in the journal, and in a file


@pytest.mark.filterwarnings("ignore:.*unequal length:RuntimeWarning")
@pytest.mark.once("newest")
@pytest.mark.parametrize(
    "states",
    [[SMALL], [LARGE], [SMALL, LARGE], [LARGE, SMALL], [SMALL, SMALL, LARGE, SMALL, SMALL]],
)
@pytest.mark.parametrize("end", ["release", "close", "finish"])
def test_the_last_checkpoint_counts_wherever_it_fits(
    directory: Place, states: list[Any], end: str
) -> None:
    trace = directory.create(**definition())
    writer = trace.writer(0)
    for number, state in enumerate(states):
        writer.record(*draw(number))
        writer.checkpoint({"number": number, **state})
    if end == "release":
        writer._release()
    else:
        writer.close()
    if end == "finish":
        with trace.writer(1) as other:
            other.record(*draw(0))
        trace.split_warmup(0)
        trace.finish()
        trace.extend(1)
    with trace.writer(0) as again:
        draws, state = again.resume()
    assert draws == len(states)
    assert identical(state, {"number": len(states) - 1, **states[-1]})


@pytest.mark.once("newest")
@pytest.mark.parametrize("options", [{}, {"journal": False}, {"durability": "disk"}])
def test_of_two_checkpoints_after_the_same_draw_the_later_one_counts(
    fast_place: Place, options: dict[str, Any]
) -> None:
    trace = fast_place.create(**definition(), **options)
    with trace.writer(0) as writer:
        for i in range(14):
            writer.record(*draw(i))
        for state in ("small", LARGE, "smaller", LARGE, "last"):
            writer.checkpoint(state)
            assert str(fast_place.open().last_checkpoint(0)) == str((14, state))
    with trace.writer(1) as writer:
        for i in range(14):
            writer.record(*draw(i))
    trace.finish()
    trace.extend(1)
    for state in ("continued", LARGE):
        with trace.writer(0) as writer:
            assert writer.resume()[0] == 14
            writer.checkpoint(state)
        assert str(fast_place.open().last_checkpoint(0)) == str((14, state))


def test_a_chain_that_went_back_still_has_its_checkpoint(directory: Place) -> None:
    trace = directory.create(**definition())
    with trace.writer(0) as writer:
        writer.record(*draw(0))
        writer.checkpoint(SMALL)
        writer.record(*draw(1))
    for _ in range(2):
        with trace.writer(0) as writer:
            assert writer.resume() == (1, SMALL)


def test_a_checkpoint_half_written_leaves_the_one_before(directory: Place) -> None:
    trace = directory.create(**definition())
    writer = trace.writer(0)
    writer.record(*draw(0))
    writer.checkpoint({"number": 1})
    writer.checkpoint({"number": 2})
    writer._release()
    slots = journallayout.slots(trace._layout)
    with open(journal_of(trace), "r+b") as file:
        file.seek(slots[3 % 2])
        file.write(b"killed while this was written")
    with trace.writer(0) as writer:
        assert writer.resume() == (1, {"number": 2})


def test_a_damaged_checkpoint_in_the_journal_is_named_and_repair_drops_it(
    directory: Place,
) -> None:
    trace = directory.create(**definition())
    writer = trace.writer(0)
    writer.record(*draw(0))
    writer.checkpoint({"number": 1})
    writer._release()
    with open(journal_of(trace), "r+b") as file:
        file.seek(journallayout.slots(trace._layout)[1] + 12)
        file.write(b"?")
    assert any("checkpoint" in str(damage) for damage in trace.check())
    with pytest.raises(zt.errors.DamagedTraceError, match="zarrtrace repair"):
        trace.split_warmup(0)
    writer = trace.writer(0)
    with pytest.raises(zt.errors.DamagedTraceError, match="zarrtrace repair"):
        writer.resume()
    writer._release()
    assert any("checkpoint" in line for line in trace.repair())
    assert trace.check() == []
    with trace.writer(0) as writer:
        assert writer.resume() == (1, None)


def journal_of(trace: zt.Trace) -> Path:
    return Path(trace.path) / "_sampling_state/journal/c.0.0"


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[]",
        '{"draw": 1}',
        '{"draw": -1, "state": 0}',
        '{"draw": "1", "state": 0}',
        '{"draw": true, "state": 0}',
        '{"draw": 2, "state": {"!": "array", "dtype": "|O", "shape": [1], "data": ""}}',
        '{"draw": 2, "state": {"!": "array", "dtype": "<f8", "shape": [9], "data": "AAAA"}}',
        '{"draw": 2, "state": {"!": "array", "dtype": "<f8", "shape": [-1], "data": ""}}',
        '{"draw": 2, "state": {"!": "no such kind"}}',
        '{"draw": 2, "state": {"!": ["unhashable"]}}',
        '{"draw": 2, "state": {"!": "int", "hex": "os.system"}}',
        '{"draw": 2, "state": {"!": "dict", "items": [[[1], 2]]}}',
        '{"draw": 2, "state": ' + "[" * 100_000 + "]" * 100_000 + "}",
    ],
)
def test_a_checkpoint_that_is_none_is_an_error_that_says_what_to_do(
    memory: Place, text: str
) -> None:
    trace = memory.create(**definition())
    with trace.writer(0) as writer:
        writer.record(*draw(0))
        writer.record(*draw(1))
    trace._block(0).write("state", text)
    with (
        trace.writer(0) as writer,
        pytest.raises(zt.errors.DamagedTraceError, match="zarrtrace repair") as caught,
    ):
        writer.resume()
    assert caught.value.chain == 0
    assert any("checkpoint" in line for line in trace.repair())
    with trace.writer(0) as writer:
        assert writer.resume() == (2, None)


@pytest.mark.parametrize("journal", [True, False])
def test_a_checkpoint_of_later_draws_is_damage_or_of_a_copy(
    directory: Place, journal: bool
) -> None:
    """Without a journal it is what a copy has whose rows were copied before the checkpoint."""
    trace = directory.create(**definition(), journal=journal)
    with trace.writer(0) as writer:
        writer.record(*draw(0))
        writer.record(*draw(1))
    trace._block(0).write("state", '{"draw": 7, "state": 0}')
    if journal:
        with (
            trace.writer(0) as writer,
            pytest.raises(zt.errors.DamagedTraceError, match="zarrtrace repair"),
        ):
            writer.resume()
        assert any("checkpoint" in line for line in trace.repair())
    with trace.writer(0) as writer:
        assert writer.resume() == (2, None)


# Extending ------------------------------------------------------------------------------------


@pytest.mark.once("newest")
@pytest.mark.parametrize("finish", [False, True])
@pytest.mark.parametrize("checkpoint", [None, 21, 30])
def test_a_trace_takes_more_draws(fast_place: Place, finish: bool, checkpoint: int | None) -> None:
    trace = fast_place.create(**definition())
    for chain in range(2):
        with trace.writer(chain) as writer:
            for i in range(30):
                writer.record(*draw(i))
                if i + 1 == checkpoint:
                    writer.checkpoint(checkpoint)
    if finish:
        trace.finish()
    longer = fast_place.open("a").extend(draws=7)
    assert longer.draws == 27
    assert not longer.finished
    for chain in range(2):
        with longer.writer(chain) as writer:
            start, state = writer.resume()
            assert (start, state) == ((30, None) if checkpoint is None else (checkpoint,) * 2)
            for i in range(start, 37):
                writer.record(*draw(i))
    longer.finish()
    again = fast_place.open()
    assert again.recorded.tolist() == [37, 37]
    assert is_right(again, 0)
    assert is_right(again, 1)
    assert again.posterior.sizes["draw"] == 27


def test_extending_asks_for_a_whole_number(memory: Place) -> None:
    trace = memory.create(**definition())
    for wrong in (0, -1, 1.5, True, "9"):
        with pytest.raises(zt.errors.InvalidInputError, match="whole number"):
            trace.extend(wrong)  # type: ignore[arg-type]


def test_a_damaged_checkpoint_is_refused_in_the_same_words_wherever_it_is_asked_for(
    directory: Place,
) -> None:
    trace = directory.create(**definition())
    with trace.writer(0) as writer:
        writer.record(*draw(0))
        writer.checkpoint(LARGE)
        writer.record(*draw(1))
    file = Path(directory.path) / "_sampling_state" / "state" / "c.0"
    file.write_bytes(file.read_bytes()[:-9] + b"x" * 9)
    said = []
    with trace.writer(0) as writer:
        for ask in (writer.resume, lambda: trace.last_checkpoint(0)):
            with pytest.raises(zt.errors.DamagedTraceError, match="zarrtrace repair") as caught:
                ask()
            said.append(str(caught.value))
            assert caught.value.chain == 0
    assert said[0] == said[1]
    assert "its checkpoint cannot be read" in said[0]
    assert any("checkpoint" in line for line in trace.repair())
    assert trace.last_checkpoint(0) == (0, None)
    with trace.writer(0) as writer:
        assert writer.resume() == (2, None)
