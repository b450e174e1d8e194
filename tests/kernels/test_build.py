"""python -m flq.kernels.build, as a process: with compilers of every kind, in folders where it can
write and where it cannot, killed in the middle and many at once. Runs on Python 3.6 too.
"""

import ctypes
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from flq.errors import ConfigError
from flq.kernels import build, library
from tests.disks import small_disk

ROOT, SOURCE = Path(library.DIRECTORY).parents[1], library.SOURCES[0]
PATIENCE_S = 120.0  # until something is called broken
COMPILER = next(filter(None, map(shutil.which, build.COMPILERS)), None)
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler here")
LOAD = ("import sys; from flq.kernels import library; "
        "print(library.load(sys.argv[1]) is not None)")


def start(*arguments, root=ROOT, interpreter=sys.executable, **variables):
    """The command, in a process group of its own."""
    environment = dict(os.environ, PYTHONPATH="", **variables)
    if "CC" not in variables:
        environment.pop("CC", None)
    command = [str(word) for word in [interpreter, "-m", "flq.kernels.build", *arguments]]
    return subprocess.Popen(command, cwd=str(root), env=environment, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, universal_newlines=True,
                            start_new_session=True)


def run(*arguments, **options):
    """(exit code, what it printed)"""
    process = start(*arguments, **options)
    text = process.communicate(timeout=PATIENCE_S)[0]
    return process.returncode, text


def refused(folder, **variables):
    """What it says where it makes none: one line, and nothing is left."""
    code, text = run("--directory", folder, **variables)
    assert code == 2 and text.count("\n") == 1, text
    assert text.startswith("no compiled kernels, NumPy computes: ") and os.listdir(
        str(folder)) == []
    return text


def built(folder, **variables):
    """The path of the only library, which was just made."""
    code, text = run("--directory", folder, **variables)
    path = library.path(str(folder))
    assert (code, text) == (0, f"compiled kernels: {path}\n")
    assert os.listdir(str(folder)) == [os.path.basename(path)] and library.load(path) is not None
    return path


def can_load(path, interpreter=sys.executable):
    done = subprocess.run([str(interpreter), "-c", LOAD, path], cwd=str(ROOT),
                          stdout=subprocess.PIPE, universal_newlines=True, check=True)
    return done.stdout == "True\n"


def program(path, text):
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def folder(tmp_path):
    """Where the library is to lie."""
    path = tmp_path / "kernels"
    path.mkdir()
    return path


@pytest.fixture
def compile_instead(tmp_path):
    """compile_instead(C) -> a compiler that takes this text in place of the kernels; in it KERNELS
    stands for their file.
    """
    def make(text):
        source = tmp_path / "other.c"
        source.write_text(text.replace("KERNELS", f'"{SOURCE}"'))
        return program(tmp_path / "compiler", f'#!/bin/sh\nfor word; do shift\nif [ "$word" = '
                       f'"{SOURCE}" ]; then word={source}; fi\nset -- "$@" "$word"\ndone\n'
                       f'exec {COMPILER} "$@"\n')
    return make


# --- what it makes


@needs_compiler
def test_it_is_made_once_and_then_there(folder):
    path = built(folder)
    made = os.stat(path).st_mtime_ns
    assert run("--directory", folder) == (0, f"compiled kernels: {path}\n")
    assert run("--directory", folder, "--quiet") == (0, "")
    # nothing is asked of a compiler then
    assert run("--directory", folder, "--quiet", CC="/no/compiler") == (0, "")
    assert os.stat(path).st_mtime_ns == made


@needs_compiler
def test_who_may_read_the_source_may_read_the_library(folder):
    before = os.umask(0o077)
    try:
        path = built(folder)
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(path).st_mode) == stat.S_IMODE(os.stat(SOURCE).st_mode)


@needs_compiler
def test_cc_names_another_compiler_with_its_options(folder, tmp_path):
    named = program(tmp_path / "mine", f'#!/bin/sh\necho "$1" >{tmp_path}/asked\nshift\n'
                    f'exec {COMPILER} "$@"\n')
    built(folder, CC=named + " -mine")
    assert (tmp_path / "asked").read_text() == "-mine\n"


@needs_compiler
def test_an_empty_cc_names_none(folder):
    built(folder, CC="")


@needs_compiler
def test_what_one_python_made_another_loads(folder):
    others = [path for pattern in ("3.6.*", "3.9.*", "3.12.*")
              for path in Path.home().glob(f".pyenv/versions/{pattern}/bin/python3")]
    others += [path / "bin" / "python" for path in ROOT.glob(".venv*")]
    able = [path for path in others if not subprocess.call(
        [str(path), "-c", "import numpy"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)]
    if not able:
        pytest.skip("there is no other Python with NumPy here")
    assert can_load(built(folder), able[0])
    os.unlink(library.path(str(folder)))
    assert can_load(built(folder, interpreter=able[0]))


@needs_compiler
def test_it_is_built_from_any_folder_also_one_with_another_flq(tmp_path):
    (tmp_path / "flq").mkdir()
    (tmp_path / "flq" / "__init__.py").write_text("raise AssertionError\n")
    (tmp_path / "made").mkdir()
    code = (f"import sys; sys.path[0] = {str(ROOT)!r}; from flq.kernels import build; "
            "sys.exit(build.main(['--directory', 'made']))")
    done = subprocess.run([sys.executable, "-c", code], cwd=str(tmp_path), stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, universal_newlines=True)
    made = library.path(str(tmp_path / "made"))
    assert (done.returncode, done.stdout) == (0, f"compiled kernels: {made}\n")


@needs_compiler
def test_what_lies_beside_flq_hides_nothing_of_python(tree, folder):
    """As the enum of old packages does, in the site-packages that FLQ is in too."""
    (tree / "enum.py").write_text("raise AssertionError\n")
    code = (f"import sys; sys.path.append({str(tree)!r}); from flq.kernels import build; "
            f"sys.exit(build.main(['--directory', {str(folder)!r}]))")
    done = subprocess.run([sys.executable, "-c", code], cwd=str(folder), stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, universal_newlines=True)
    assert (done.returncode, done.stdout) == (
        0, f"compiled kernels: {library.path(str(folder))}\n")


# --- where there is no compiler, or not a right one


def test_without_a_compiler_one_line_says_what_to_install(folder, tmp_path):
    said = refused(folder, PATH=str(tmp_path))
    assert "there is no C compiler; expected cc or gcc or clang; got none; sudo apt " in said


@pytest.mark.parametrize("named", ["/no/compiler", "no-such-compiler -O2", " "])
def test_a_cc_that_is_no_program_is_named(folder, named):
    assert f"CC; expected a program; got {named.strip()}" in refused(folder, CC=named)


@pytest.mark.parametrize("text, words", [
    ("echo 'kernels.c:1: error: \033[31mno\n  C99'; exit 1", "got kernels.c:1: error: [31mno C99"),
    ("exit 0", "got exit code 0"), ("kill -KILL $$", "got exit code -9"),
    ("yes wrong | head -c 1000000; exit 4", "wrong wrong")])
def test_a_compiler_that_fails_is_told_in_one_short_line(folder, tmp_path, text, words):
    said = refused(folder, CC=program(tmp_path / "bad", f"#!/bin/sh\n{text}\n"))
    assert "could not compile" in said and words in said and len(said) < 1000
    assert "\033" not in said


def test_a_compiler_that_cannot_be_run_is_told(folder, tmp_path):
    said = refused(folder, CC=program(tmp_path / "bad", "neither a script nor a program"))
    assert "bad does not start; expected a program; got Exec format error" in said


def test_a_compiler_that_does_not_end_is_ended(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "LONGEST_S", 0.5)
    monkeypatch.setenv("CC", program(tmp_path / "slow", "#!/bin/sh\nexec sleep 600\n"))
    with pytest.raises(ConfigError, match="slow did not end"):
        build.build(str(folder))
    assert os.listdir(str(folder)) == []


def has(*features):
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            return set(features) <= set(file.read().split())
    except OSError:
        return False


@needs_compiler
@pytest.mark.skipif(not has("avx2", "fma"), reason="this processor cannot fuse a product and a sum")
def test_a_compiler_that_fuses_products_with_sums_is_refused(folder, tmp_path):
    fuses = program(tmp_path / "fuses",
                    f'#!/bin/sh\nexec {COMPILER} "$@" -mavx2 -mfma -ffp-contract=fast\n')
    said = refused(folder, CC=fuses)
    assert "fuses made cannot take the place of NumPy; expected the bits of NumPy" in said
    assert "got other bits than NumPy's: " in said and "weighted_sum" in said


@needs_compiler
def test_one_other_bit_of_one_kernel_is_refused(folder, compile_instead):
    said = refused(folder, CC=compile_instead("""
        #define flq_moved right
        #include KERNELS
        #undef flq_moved
        void flq_moved(const float *x, const float *y, float weight, size_t n, float *out) {
            right(x, y, weight, n, out);
            out[n - 1] = -out[n - 1];
        }
    """))
    assert "got other bits than NumPy's: moved;" in said


@needs_compiler
@pytest.mark.skipif(not has("sse2"), reason="this processor has no such register")
def test_a_library_that_turns_denormals_off_for_the_whole_process_is_refused(
        folder, compile_instead):
    """As what is linked with -ffast-math does."""
    said = refused(folder, CC=compile_instead("""
        #include KERNELS
        #include <xmmintrin.h>
        __attribute__((constructor)) static void begin(void) { _mm_setcsr(_mm_getcsr() | 0x8040); }
    """))
    assert "takes denormal numbers for 0" in said


@needs_compiler
@pytest.mark.parametrize("text", ["__attribute__((constructor)) static void begin(void) { "
                                  "__builtin_trap(); }", ""], ids=["ends", "lacks"])
def test_a_library_that_ends_the_process_or_lacks_kernels_is_refused(folder, compile_instead, text):
    said = refused(folder, CC=compile_instead(text + "\n"))
    assert "cannot take the place of NumPy; expected the bits of NumPy; got " in said
    assert "Traceback" not in said


# --- where it cannot write


@needs_compiler
def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path):
    if os.getuid() == 0:  # whom no mode keeps out
        with small_disk(tmp_path / "disk", "ro") as folder:
            assert "got Read-only file system; as its owner, or with more room" in refused(folder)
    else:
        (tmp_path / "theirs").mkdir(mode=0o555)
        assert "got Permission denied; as its owner, " in refused(tmp_path / "theirs")


@needs_compiler
@pytest.mark.parametrize("kib", [16, 64, 100])
def test_a_full_disk_is_one_line_and_keeps_nothing(tmp_path, kib):
    with small_disk(tmp_path / "disk", "size=1m") as folder:
        with open(str(folder / "taken"), "wb") as file:
            file.write(bytes(1024 * (1024 - kib)))
        code, text = run("--directory", folder)
        assert code == 2 and text.count("\n") == 1 and "o space left on device" in text, text
        assert os.listdir(str(folder)) == ["taken"]
        (folder / "taken").unlink()
        built(folder)


# --- ended in the middle, and many at once


@pytest.fixture
def slow(tmp_path):
    """A compiler that says that it was asked, leaves a file of its own and takes its time."""
    return program(tmp_path / "slow", f'#!/bin/sh\ntouch "$TMPDIR/half.o"\n'
                   f'touch {tmp_path}/asked\nexec sleep 600\n')


def begin(folder, slow):
    """A build that waits for its compiler."""
    process = start("--directory", folder, CC=slow)
    asked, deadline = Path(slow).parent / "asked", time.monotonic() + PATIENCE_S
    while not asked.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    asked.unlink()
    return process


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_end_on_request_leaves_nothing(folder, slow, number, code):
    process = begin(folder, slow)
    os.killpg(process.pid, number)
    assert process.communicate(timeout=PATIENCE_S)[0] == "" and process.returncode == code
    assert os.listdir(str(folder)) == []


@needs_compiler
def test_what_a_kill_left_is_removed_by_a_later_build_but_not_under_one_at_work(folder, slow):
    killed, at_work = begin(folder, slow), begin(folder, slow)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    left = set(os.listdir(str(folder)))
    assert len(left) == 2 and run("--directory", folder)[0] == 0
    assert left < set(os.listdir(str(folder))), "nobody can say yet which of them is at work"
    for name in left:
        os.utime(str(folder / name), (1e9, 1e9))
    assert run("--directory", folder, "--quiet") == (0, "")
    assert os.listdir(str(folder)) == [os.path.basename(library.path(str(folder)))]
    os.killpg(at_work.pid, signal.SIGKILL)
    at_work.communicate()


@needs_compiler
def test_many_at_once_make_one(folder):
    processes = [start("--directory", folder) for _ in range(6)]
    for process in processes:
        text = process.communicate(timeout=PATIENCE_S)[0]
        assert process.returncode == 0, text
    assert os.listdir(str(folder)) == [os.path.basename(library.path(str(folder)))]
    assert can_load(library.path(str(folder)))


# --- what was there before


@pytest.fixture
def tree(tmp_path):
    """An FLQ of its own, whose library may be damaged."""
    shutil.copytree(str(ROOT / "flq"), str(tmp_path / "tree" / "flq"),
                    ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    return tmp_path / "tree"


def name_in(tree):
    """What computes there, and what it computes."""
    code = ("import numpy, flq.kernels as kernels; "
            "print(kernels.library.NAME, kernels.squared_norm(numpy.ones(3000, 'f4')))")
    return subprocess.run([sys.executable, "-c", code], cwd=str(tree), universal_newlines=True,
                          env=dict(os.environ, PYTHONPATH="", FLQ_KERNELS=""), check=True,
                          stdout=subprocess.PIPE).stdout


def truncated(content):
    return content[:len(content) // 2]


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 16]) + content[middle + 1:]


@needs_compiler
@pytest.mark.parametrize("damage", [truncated, flipped, lambda content: b"",
                                    lambda content: content[:-32]],
                         ids=["truncated", "flipped", "empty", "not sealed"])
def test_a_damaged_library_is_not_loaded_and_built_again(tree, damage):
    assert name_in(tree) == "NumPy 3000.0\n"
    code, text = run(root=tree)
    path = text.rpartition(": ")[2].strip()
    assert code == 0 and path.startswith(str(tree)) and name_in(tree) == "compiled kernels 3000.0\n"
    content = Path(path).read_bytes()
    Path(path).write_bytes(damage(content))
    assert name_in(tree) == "NumPy 3000.0\n"
    assert run("--quiet", root=tree) == (0, text) and name_in(tree) == "compiled kernels 3000.0\n"


def test_an_flq_without_its_sources_computes_with_numpy(tree):
    (tree / "flq" / "kernels" / os.path.basename(SOURCE)).unlink()
    assert name_in(tree) == "NumPy 3000.0\n"
    code, text = run(root=tree)
    assert code == 2 and text.count("\n") == 1
    assert f"cannot read the sources of the kernels; expected {tree}/flq/kernels/" in text


@needs_compiler
def test_another_check_asks_for_a_library_that_it_has_seen(tree):
    assert run(root=tree)[0] == 0 and name_in(tree).startswith("compiled kernels ")
    with open(str(tree / "flq" / "kernels" / "check.py"), "a") as file:
        file.write("# asks for more\n")
    assert name_in(tree) == "NumPy 3000.0\n"
    assert run(root=tree)[0] == 0 and name_in(tree).startswith("compiled kernels ")
    assert len(list((tree / "flq" / "kernels").glob("*.so"))) == 1


@needs_compiler
def test_a_whole_file_that_this_machine_cannot_load_is_built_again(folder):
    path = library.path(str(folder))
    Path(path).write_bytes(b"of another machine")
    library.seal(path)
    assert library.is_whole(path) and library.load(path) is None
    built(folder)


@needs_compiler
def test_other_versions_go_and_other_machines_stay(folder):
    path = built(folder)
    old = folder / (library.prefix() + "0123456789ab.so")
    foreign = folder / "kernels-linux-s390x-0123456789ab.so"
    own = folder / "kernels.c"
    os.rename(path, str(old))
    loaded = library.load(str(old))
    for file in (foreign, own):
        file.write_text("")
    assert run("--directory", folder)[0] == 0
    assert set(os.listdir(str(folder))) == {os.path.basename(path), foreign.name, own.name}
    # who has loaded what was removed goes on with it
    x = np.full(3000, 2, np.float32)
    loaded.flq_squared_norm.restype = ctypes.c_double
    assert loaded.flq_squared_norm(ctypes.c_void_p(x.ctypes.data), ctypes.c_size_t(3000)) == 12000.0
