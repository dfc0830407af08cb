"""A trace whose codec comes with a package that is not installed where it is read."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from scripts import FreshScript

import zarrtrace as zt
from zarrtrace.errors import DamagedTraceError

CODEC = """
from dataclasses import dataclass

from zarr.abc.codec import BytesBytesCodec


@dataclass(frozen=True)
class Plain(BytesBytesCodec):
    is_fixed_size = True

    def to_dict(self):
        return {"name": "plain-bytes"}

    @classmethod
    def from_dict(cls, content):
        return cls()

    async def _encode_single(self, data, spec):
        return data

    async def _decode_single(self, data, spec):
        return data

    def compute_encoded_size(self, length, spec):
        return length
"""

RECORD = """
import sys
from plain_bytes import Plain
import zarrtrace as zt

variables = {"x": zt.Var(draws_per_chunk=4)}
trace = zt.create(sys.argv[1], chains=1, draws=10, posterior=variables, compressors=[Plain()])
with trace.writer(0) as writer:
    writer.record_block({"x": range(10)})
"""

READ = """
import sys
import zarrtrace as zt

print(zt.open(sys.argv[1]).get("x")[0].tolist() == [*range(10)])
"""


@pytest.mark.once("newest")
def test_a_codec_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package"
    (package / "plain_bytes-1.0.dist-info").mkdir(parents=True)
    (package / "plain_bytes.py").write_text(CODEC)
    (package / "plain_bytes-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: plain-bytes\nVersion: 1.0\n"
    )
    (package / "plain_bytes-1.0.dist-info" / "entry_points.txt").write_text(
        "[zarr.codecs]\nplain-bytes = plain_bytes:Plain\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(package), *sys.path]))
    script, path = FreshScript(tmp_path), tmp_path / "run.zarr"
    script.run(RECORD, path)
    for mode in ("r", "a"):
        with pytest.raises(DamagedTraceError, match=r"'plain-bytes'.*nothing is lost") as caught:
            zt.open(path, mode)
        assert (caught.value.group, caught.value.variable) == ("posterior", "x")
        assert "install the package" in caught.value.remedy
    assert script.run(READ, path) == "True\n"
