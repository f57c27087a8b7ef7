"""What others send or leave in files is read, or refused in the words for it: no other exception, no endless work."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from targets import TARGETS, clean, feed, seeds

SLOW = {"result": 25, "certificate": 25, "experiment": 25, "configuration": 40}
"""The examples of targets that take milliseconds; the others get 200."""

TOKENS = [b"", b"\0", b"\n", b"\xff\xfe", b"{", b"[" * 200, b"null", b"-1", b"9" * 400, b"1e999", b'"x"', b"=", b"#"]
VALUES = [
    None,
    True,
    0,
    -1,
    10**6,
    2**62,
    2**80,
    -1e308,
    5e-324,
    "",
    "x",
    "9>9",
    [],
    [[1, "a"]],
    {},
    {"x": 1},
    {"0": None},
]


@pytest.fixture(autouse=True, scope="module")
def a_scratch_folder():
    yield
    clean()


@st.composite
def bytes_like(draw, name):
    """A seed that was cut, overwritten and added to; or anything."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    data = bytearray(draw(st.sampled_from(seeds(name))))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["cut", "change", "remove", "insert", "token"])):
            case "cut":
                del data[at:]
            case "change":
                data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case "remove":
                del data[at : at + draw(st.integers(1, 40))]
            case "insert":
                data[at:at] = draw(st.binary(max_size=8))
            case _:
                data[at:at] = draw(st.sampled_from(TOKENS))
    return bytes(data)


def places(value, path=()):
    """Yield the way to every value in a JSON document."""
    yield path
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in entries:
        yield from places(each, (*path, key))


@st.composite
def documents(draw, name):
    """A JSON seed in which one value is missing or another one."""
    seed = draw(st.sampled_from(seeds(name)))
    prefix, text = (seed[:1], seed[1:]) if name == "reply" else (b"", seed)
    document = json.loads(text.splitlines()[0]) if name == "lines" else json.loads(text)
    *way, last = draw(st.sampled_from([path for path in places(document) if path]))
    document = copy.deepcopy(document)
    around = document
    for key in way:
        around = around[key]
    if draw(st.booleans()):
        around[last] = draw(st.sampled_from(VALUES))
    else:
        del around[last]
    return prefix + json.dumps(document).encode()


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_sound_is_read(name):
    for seed in seeds(name):
        assert feed(name, seed) or (name, seed[:1]) in {("envelope", b"\x12"), ("configuration", b"n")}


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_not_is_refused_in_the_words_for_it(name):
    @given(data=bytes_like(name))
    @settings(max_examples=SLOW.get(name, 200))
    def attempt(data):
        feed(name, data)

    attempt()


@pytest.mark.parametrize("name", ["reply", "route", "lines", "summary"])
def test_a_document_of_the_wrong_types_is_refused_too(name):
    @given(data=documents(name))
    @settings(max_examples=200)
    def attempt(data):
        feed(name, data)

    attempt()


CRASHES = {
    "experiment": [b"keys = 3", b"seeds = 'abc'", b"[methods]\ndpsgd = 1", b"tuning = []", b"[tuned]\nx = 1"],
    "topology": [b"0 1\n1 " + b"2" * 5000, "0 1\n1 ²".encode()],
    "configuration": [
        b'data-path = "a\\u0000b"',
        b"seed = " + b"9" * 5000,
        b"seed = " + b"[" * 5000,
        b"a='x' " * 40 + b"!",
    ],
    "lines": [b"[" * 100_000, b'{"round": ' + b"9" * 5000 + b"}", b"{}", b"null"],
    "summary": [b"[]", b"", b"NaN"],
    "result": [b"\1null\n", b"\2[]", b"\3", b"\0seed = 1979-05-27", b"\3" + b"\xff" * 100],
}
"""What once raised something else, or took for ever."""


@pytest.mark.parametrize(("name", "data"), [(name, data) for name in CRASHES for data in CRASHES[name]], ids=repr)
def test_what_once_crashed_is_refused(name, data):
    assert not feed(name, data)


def test_the_harness_that_follows_coverage_runs(tmp_path):
    pytest.importorskip("atheris", reason="coverage-guided fuzzing is for those who install it")
    harness = Path(__file__).with_name("fuzz.py")
    done = subprocess.run(
        [sys.executable, harness, "--seconds", "2", "lines"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[1].replace(",", "")) > 100
