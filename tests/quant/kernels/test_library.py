import shutil

import pytest

from basicsr.quant.kernels import library


@pytest.fixture(autouse=True)
def compiled_anew():
    library.load_library.cache_clear()
    yield
    library.load_library.cache_clear()


def test_without_a_compiler_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(RuntimeError, match="No C compiler was found"):
        library.load_library()


def test_a_compiler_that_fails_is_quoted(monkeypatch, tmp_path):
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho 'no licence today' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    with pytest.raises(RuntimeError, match="no licence today"):
        library.load_library()


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_flags_that_a_compiler_does_not_know_are_done_without(monkeypatch, tmp_path):
    compiler = tmp_path / "cc"
    compiler.write_text('#!/bin/sh\ncase "$*" in *-fopenmp*|*-march=native*) exit 1;; esac\nexec gcc "$@"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    assert library.load_library().gradients.restype is not None
