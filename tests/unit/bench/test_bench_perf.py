"""Samples of perf, summed by stage."""

from __future__ import annotations

import importlib.util

import pytest

from bench import _perf as perf
from keyplane import native

READ = """
    7f1 _Py_dict_lookup
    7f2 CPyDef_protobytes___span_at
    7f3 CPyDef_plain___place_plain
    7f4 CPyDef_single___get_item
    7f5 CPyDef_server_connection___ServerConnection____run
    7f6 context_run
"""
SENT = """
    ff1 tcp_sendmsg
    ff2 do_syscall_64
    7f1 __send
    7f2 CPyDef_connection___Connection____push
"""
FREED = """
    7f1 object_dealloc
    7f2 operation___Get_dealloc
    7f3 CPyDef_client_connection___ClientCall___end
"""
LOOP = """
    7f1 _PyEval_EvalFrameDefault
    7f2 context_run
"""
STORED = """
    7f1 rocksdb::(anonymous namespace)::SkipListRep::Iterator::Seek
    7f2 rocksdict::rdict::Rdict::get
    7f3 CPyDef_reads___get
"""


def lines(*samples: str) -> list[str]:
    return "\n".join(sample.lstrip("\n") for sample in samples).split("\n")


def test_a_sample_belongs_to_its_innermost_stage() -> None:
    counted = perf.count(lines(READ, SENT, FREED, LOOP, READ), "router")
    assert counted == {
        "request read, key hashed": 2,
        "socket: send": 1,
        "call to the storage node, and its answer": 1,
        perf.EVENT_LOOP: 1,
    }


def test_the_last_sample_counts_without_an_empty_line_after_it() -> None:
    assert sum(perf.count(lines(READ.rstrip("\n")), "router").values()) == 1
    assert not perf.count([], "router")


def test_rocksdb_is_a_stage_of_its_own() -> None:
    assert perf.count(lines(STORED), "storage") == {"RocksDB": 1}


@pytest.mark.parametrize("process", perf.STAGES)
def test_stages_are_made_of_compiled_modules(process: str) -> None:
    """One that was renamed or is compiled no more would count for somebody else, in silence."""
    compiled = {name.rpartition(".")[2] for name in native.MODULES}
    for stage, modules in perf.STAGES[process]:
        if modules != "<rocksdb>":
            assert set(modules.split()) <= compiled, stage
    assert all(importlib.util.find_spec(name) for name in native.MODULES)


def test_without_perf_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(perf.PerfFailed, match="apt-get install linux-perf"):
        perf.check()
