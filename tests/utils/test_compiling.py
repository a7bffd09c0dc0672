import os
import shutil

import pytest

from basicsr.utils import compiling
from basicsr.utils.compiling import NotCompiledError, load_compiled

GCC = shutil.which("gcc")


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "seven.c"
    file.write_text('#include "seven.h"\nint seven(void) { return SEVEN; }\n')
    (tmp_path / "seven.h").write_text("#define SEVEN 7\n")
    return file


def compiler_that(folder, does):
    file = folder / "cc"
    file.write_text(f"#!/bin/sh\n{does}\n")
    file.chmod(0o755)
    return str(file)


def libraries(folder):
    return sorted(folder.rglob("*.so"))


@pytest.mark.skipif(GCC is None, reason="needs gcc")
def test_a_library_is_compiled_once(source, tmp_path):
    compiler = compiler_that(tmp_path, f'echo one >> {tmp_path}/calls\nexec {GCC} "$@"')
    header = tmp_path / "seven.h"
    for _ in range(2):
        assert load_compiled(source, [compiler], [("-O1",)], [header]).seven() == 7
    assert (tmp_path / "calls").read_text().split() == ["one"]
    header.write_text("#define SEVEN 8\n")
    assert load_compiled(source, [compiler], [("-O1",)], [header]).seven() == 8
    assert len(libraries(tmp_path)) == 2


@pytest.mark.skipif(GCC is None, reason="needs gcc")
def test_flags_that_a_compiler_does_not_know_are_done_without(source):
    assert load_compiled(source, ["gcc"], [("-march=of-tomorrow",), ("-O1",)]).seven() == 7


def test_without_a_compiler_it_says_so(source):
    with pytest.raises(NotCompiledError, match="There is no compiler: no-such-one, nor-this cannot be found"):
        load_compiled(source, ["no-such-one", "nor-this"], [()])


def test_a_compiler_that_fails_is_quoted(source, tmp_path):
    compiler = compiler_that(tmp_path, "echo 'no licence today' >&2; exit 1")
    with pytest.raises(NotCompiledError, match="makes no library that can be loaded: no licence today"):
        load_compiled(source, [compiler], [()])
    assert not libraries(tmp_path)


@pytest.mark.parametrize("does", ['echo rubbish > "$6"', "exit 0"])
def test_what_is_no_library_is_refused(source, tmp_path, does):
    compiler = compiler_that(tmp_path, does)
    with pytest.raises(NotCompiledError, match="makes no library that can be loaded"):
        load_compiled(source, [compiler], [("-O1",)])


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_cache_that_cannot_be_written_is_refused(source, tmp_path, monkeypatch):
    (tmp_path / "cache").mkdir(mode=0o500)
    with pytest.raises(NotCompiledError):
        load_compiled(source, ["gcc"], [()])


def test_processors_are_told_apart(source, tmp_path, monkeypatch):
    if GCC is None:
        pytest.skip("needs gcc")
    load_compiled(source, ["gcc"], [()])
    monkeypatch.setattr(compiling, "_processor", lambda: b"another one")
    load_compiled(source, ["gcc"], [()])
    assert len(libraries(tmp_path)) == 2
