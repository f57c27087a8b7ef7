"""One typed definition of every key: what is refused, what is filled in, what is written, who shares what."""

import json
import math
import subprocess
import sys
import tomllib
from itertools import groupby
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ross_flwr.algorithms
from ross_flwr import config
from ross_flwr.cli.keys import FIRST_RUN
from ross_flwr.config import ConfigError, Key, group, host_and_port, keys, option, relevant, require, resolve, to_toml
from ross_flwr.graph.options import GraphOptions
from ross_flwr.runs.folder import RunFolder
from ross_flwr.runs.options import RunOptions
from ross_flwr.runs.side_by_side import BESIDE

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def defaults():
    """Return every key that is known now; other tests register methods of their own."""
    return resolve({}).values


def of_the_package(key: Key) -> bool:
    """Tell whether a key comes from ross_flwr, not from a test."""
    made = [config.groups._owners[owner].__module__ for owner in key.owners]
    return not made or any(module.startswith("ross_flwr.") for module in made)


def values(key: Key) -> st.SearchStrategy:
    """All that a key takes."""
    if key.choices:
        return st.sampled_from(key.choices)
    if key.kind is bool:
        return st.booleans()
    if key.kind is str:
        return st.text().filter(lambda text: "\0" not in text)
    if key.kind is int:
        low, high = -(2**63) + 1 if key.minimum is None else int(key.minimum), 2**63 - 1
        return st.integers(low, high if key.maximum is None else int(key.maximum))
    return st.floats(key.minimum, key.maximum, allow_nan=False, allow_infinity=False)


possible = st.fixed_dictionaries({}, optional={key.name: values(key) for key in keys()})


@given(possible)
def test_what_is_resolved_is_written_and_read_back_the_same(raw):
    options = resolve(raw).values
    again = tomllib.loads(to_toml(resolve(raw)))
    assert again == options == resolve(again).values
    assert {name: type(value) for name, value in again.items()} == {
        name: type(value) for name, value in options.items()
    }


@given(possible)
def test_a_folder_gives_the_configuration_back_whatever_the_texts_in_it(tmp_path_factory, raw):
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    folder.write_config(resolve(raw))
    assert folder.read_config() == resolve(raw)


def test_defaults_are_filled_in_and_what_is_given_stays():
    resolved = resolve({"num-agents": 7, "topology": "ring"})
    assert resolved.part(RunOptions) == RunOptions(num_agents=7)
    assert resolved.part(GraphOptions) == GraphOptions(topology="ring")
    assert resolved.values == {**defaults(), "num-agents": 7, "topology": "ring"}
    assert set(defaults()) == {key.name for key in keys()}


def test_a_path_is_the_text_of_it():
    assert resolve({"data-path": Path("data") / "mnist"}).values["data-path"] == str(Path("data") / "mnist")


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        ({"num-agnts": 3}, "key num-agnts (value 3) is not known: did you mean num-agents?"),
        ({"num_rounds": 3}, "key num_rounds (value 3) is not known: did you mean num-rounds?"),
        ({"batch": "x"}, "key batch (value 'x') is not known: did you mean batch-size?"),
        ({"zzz": True}, "key zzz (value true) is not known: `ross-flwr config` lists the keys"),
        ({"download": 1}, "download = 1 is not allowed: it takes true or false"),
        ({"download": "true"}, "download = 'true' is not allowed: it takes true or false"),
        ({"num-rounds": True}, "num-rounds = true is not allowed: it takes a whole number of at least 1"),
        ({"num-rounds": "20"}, "num-rounds = '20' is not allowed: it takes a whole number of at least 1"),
        ({"num-rounds": 2.0}, "num-rounds = 2.0 is not allowed: it takes a whole number of at least 1"),
        ({"num-rounds": 0}, "num-rounds = 0 is not allowed: it takes a whole number of at least 1"),
        ({"num-rounds": 2**63}, f"num-rounds = {2**63} is not allowed: it takes a whole number of at least 1"),
        ({"seed": -1}, "seed = -1 is not allowed: it takes a whole number from 0 to 4294967295"),
        ({"seed": 2**32}, "seed = 4294967296 is not allowed: it takes a whole number from 0 to 4294967295"),
        (
            {"corruption-rate": 1.5},
            "corruption-rate = 1.5 is not allowed: it takes a number from 0 to 1",
        ),
        ({"partition-alpha": math.nan}, "partition-alpha = nan is not allowed: it takes a number of at least 0.001"),
        ({"attack-strength": math.nan}, "attack-strength = nan is not allowed: it takes a number"),
        ({"attack-strength": -math.inf}, "attack-strength = -inf is not allowed: it takes a number"),
        ({"attack-strength": "x"}, "attack-strength = 'x' is not allowed: it takes a number"),
        ({"attack-strength": False}, "attack-strength = false is not allowed: it takes a number"),
        ({"topology": 3}, "topology = 3 is not allowed: it takes a text"),
        ({"topology": ["ring"]}, "topology = ['ring'] is not allowed: it takes a text"),
        ({"data-path": "\udcff"}, r"data-path = '\udcff' is not allowed: it takes a text"),
        ({"device": "gpu"}, "device = 'gpu' is not known: use one of auto, cpu, cuda; did you mean 'cpu'?"),
        ({"device": "tpux"}, "device = 'tpux' is not known: use one of auto, cpu, cuda"),
        ({"device": 0}, "device = 0 is not allowed: it takes one of auto, cpu, cuda"),
    ],
)
def test_bad_input_is_refused_in_a_sentence_that_says_what_would_be_right(raw, sentence):
    with pytest.raises(ConfigError) as refusal:
        resolve(raw)
    assert str(refusal.value).startswith(sentence)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("address", ["", "9700", "host:", "host:0", "host:70000", "host:http"])
def test_an_address_is_a_host_and_a_port(address):
    assert host_and_port("[::1]:9700", "it") == ("::1", 9700)
    with pytest.raises(ConfigError, match="it is not an address: use host:port"):
        host_and_port(address, "it")


def test_a_name_that_is_not_registered_is_refused_with_the_nearest_that_is():
    require("topology", "ring", ["ring", "star"])
    with pytest.raises(ConfigError) as refusal:
        require("topology", "rign", ["star", "ring"])
    assert str(refusal.value) == "topology = 'rign' is not known: use one of ring, star; did you mean 'ring'?"
    with pytest.raises(ConfigError, match="did you mean 'ring'"):
        require("topology", "RING", ["star", "ring"])


def test_of_very_many_names_only_the_nearest_are_told():
    with pytest.raises(ConfigError) as refusal:
        require("model", "resnet19", [f"resnet{depth}" for depth in range(20, 120)])
    assert len(str(refusal.value)) < 200
    assert "use one of resnet119, " in str(refusal.value)
    assert "or 92 others; did you mean 'resnet" in str(refusal.value)


def test_a_whole_number_will_do_for_a_number():
    options = resolve({"attack-strength": -2, "partition-alpha": 1}).values
    assert [(options[name], type(options[name])) for name in ("attack-strength", "partition-alpha")] == [
        (-2.0, float),
        (1.0, float),
    ]


@pytest.mark.parametrize("key", keys(), ids=lambda key: key.name)
def test_every_key_is_documented_and_takes_its_own_default(key):
    assert key.meaning
    assert key.name == key.name.lower().replace("_", "-")
    assert key.parse(key.default) == key.default == defaults()[key.name]


def test_the_document_tells_of_every_key_what_it_means_its_unit_and_what_it_takes():
    blocks = {block.splitlines()[-1].split(" = ")[0]: block for block in to_toml(resolve({})).split("\n\n")}
    for key in keys():
        comment = " ".join(line.removeprefix("# ") for line in blocks[key.name].splitlines()[:-1])
        assert comment == f"{key.meaning} [{key.unit}{': ' * bool(key.unit)}{key.allowed}]"


def test_the_document_fits_a_terminal_of_80_columns_and_groups_the_keys():
    lines = to_toml(resolve({})).splitlines()
    assert max(map(len, lines)) <= 80
    heads = groupby(lines, key=lambda line: line.startswith("# =="))
    headings = [" ".join(line.strip("# =") for line in group) for is_heading, group in heads if is_heading]
    assert headings[0] == "The run"
    assert "Every method" in headings
    assert len(headings) == len(set(headings)) > 5


@pytest.mark.parametrize("key", ["data-path", "topology", "results", "state-dir", "evaluate-at"])
def test_no_text_holds_the_character_nul(key):
    with pytest.raises(ConfigError, match=rf"{key} = 'a\\x00b' is not allowed: it takes a text without the character"):
        resolve({key: "a\0b"})


def test_the_document_escapes_what_toml_does_not_allow_in_a_text():
    text = 'a "quote", a \\, a\ttab, a\nline, \x1f, \x7f, Σ, 🌹, '
    assert tomllib.loads(to_toml(resolve({"data-path": text})))["data-path"] == text


def test_the_app_in_pyproject_has_every_key_with_its_default_or_as_the_first_run_has_it():
    """`flwr run --run-config` refuses a key that does not stand there."""
    table = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["tool"]["flwr"]["app"]["config"]
    first = tomllib.loads(FIRST_RUN.read_text(encoding="utf-8"))
    wanted = {key.name: first.get(key.name, key.default) for key in (BESIDE, *keys()) if of_the_package(key)}
    assert first.keys() <= wanted.keys()
    lines = [f"{name} = {json.dumps(value)}" for name, value in wanted.items()]
    assert {name: repr(value) for name, value in table.items()} == {name: repr(wanted[name]) for name in wanted}, (
        "[tool.flwr.app.config] in pyproject.toml is not what the code declares. Replace its lines by what "
        "`ross-flwr config | grep '^[a-z]'` prints, which is:\n\n" + "\n".join(lines) + "\n"
    )


@pytest.fixture
def a_registry_of_its_own(monkeypatch):
    """What a test declares is forgotten after it."""
    for registry in ("_groups", "_owners"):
        monkeypatch.setattr(config.groups, registry, dict(getattr(config.groups, registry)))
    monkeypatch.setattr(ross_flwr.algorithms.algorithm, "ALGORITHMS", dict(ross_flwr.algorithms.ALGORITHMS))


def method(name, **fields):
    """Register a method with these keys."""
    annotations = {field: kind for field, (kind, _) in fields.items()}
    body = {field: declared for field, (_, declared) in fields.items()}
    body |= {"__annotations__": annotations, "__module__": __name__, "idle": ross_flwr.step()(lambda *_: None)}
    return ross_flwr.register(name)(type(name, (ross_flwr.Algorithm,), body))


@pytest.mark.usefixtures("a_registry_of_its_own")
def test_a_method_brings_its_keys_and_gets_them_back():
    cls = method("toy", patience=(int, option(3, "rounds without progress", minimum=1)))
    (key,) = (key for key in keys() if key.name == "patience")
    assert (key.kind, key.default, key.owners) == (int, 3, ("toy",))
    resolved = resolve({"patience": 5, "learning-rate": 1})
    assert resolved.part(cls) == cls(learning_rate=1.0, patience=5)
    assert resolved.part(cls) is resolved.part(cls)
    with pytest.raises(ConfigError, match="patience = 0"):
        resolve({"patience": 0})


@pytest.mark.usefixtures("a_registry_of_its_own")
def test_a_key_that_two_methods_share_is_one_key():
    for name in ("one", "two"):
        method(name, patience=(int, option(3, "rounds without progress")), **{name: (bool, option(False, name))})
    shared = [key for key in keys() if key.name == "patience"]
    assert [key.owners for key in shared] == [("one", "two")]
    text = to_toml(resolve({}))
    assert [line.strip("# =") for line in text.splitlines() if line.startswith("# ==")][-3:] == [
        "Methods one, two",
        "Method one",
        "Method two",
    ]


@pytest.mark.usefixtures("a_registry_of_its_own")
def test_to_register_a_method_again_replaces_it():
    for default in (3, 4):
        method("toy", patience=(int, option(default, "rounds without progress")))
    assert resolve({}).values["patience"] == 4


@pytest.mark.parametrize(
    ("kind", "declared", "reason"),
    [
        (float, option(0, "what happens"), "already declared differently by one"),
        (int, option(0, "something else"), "already declared differently by one"),
        (int, option(0, "what happens", minimum=0), "already declared differently by one"),
    ],
)
@pytest.mark.usefixtures("a_registry_of_its_own")
def test_two_meanings_of_a_key_are_refused(kind, declared, reason):
    method("one", patience=(int, option(0, "what happens")))
    with pytest.raises(ConfigError, match=f"key patience of two is {reason}"):
        method("two", patience=(kind, declared))
    assert "two" not in config.groups._owners


def two_with_patience():
    """Register two methods that share a key, and differ in its default."""
    return [method(name, patience=(int, option(n, "rounds without progress"))) for name, n in (("one", 1), ("two", 5))]


@pytest.mark.usefixtures("a_registry_of_its_own")
def test_a_key_whose_default_differs_is_empty_and_leaves_each_method_its_own():
    one, two = two_with_patience()
    assert [resolve({}).part(cls).patience for cls in (one, two)] == [1, 5]
    assert [resolve({"patience": 3}).part(cls).patience for cls in (one, two)] == [3, 3]
    written = to_toml(resolve({}))
    assert "a whole number; '' for the method's own: 1 in one, 5 in two]" in written.replace("\n# ", " ")
    assert tomllib.loads(written)["patience"] == resolve({"patience": ""}).values["patience"] == ""
    with pytest.raises(ConfigError, match=r"patience = 'x' is not allowed: it takes a whole number; '' for the meth"):
        resolve({"patience": "x"})
    with pytest.raises(ConfigError, match="num-rounds = '' is not allowed: it takes a whole number of at least 1"):
        resolve({"num-rounds": ""})


@pytest.mark.usefixtures("a_registry_of_its_own")
def test_another_process_that_knows_one_of_the_methods_takes_the_same_default(monkeypatch):
    _, two = two_with_patience()
    told = relevant(resolve({}), "two")
    known = {name: cls for name, cls in config.groups._owners.items() if name != "one"}
    monkeypatch.setattr(config.groups, "_owners", known)
    assert resolve(told).part(two).patience == 5


@pytest.mark.usefixtures("a_registry_of_its_own")
def test_a_room_brings_a_group_of_keys_and_gets_it_back():
    @group("Weather")
    class Weather:
        rain: float = option(0.5, "part of the days on which it rains", minimum=0.0, maximum=1.0)

    assert resolve({"rain": 1}).part(Weather) == Weather(rain=1.0)
    assert "# == Weather ==" in to_toml(resolve({}))
    with pytest.raises(ConfigError, match="key rain of Other is already declared differently by every run"):

        @group("Other")
        class Other:
            rain: float = option(0.25, "part of the days on which it rains", minimum=0.0, maximum=1.0)


TOY = """
from ross_flwr import ConfigError, DPSGD, option, register
try:
    @register("toy")
    class Toy(DPSGD):
        num_rounds: float = option(0.5, "something else")
except ConfigError as error:
    print(error)
"""


def test_a_method_cannot_take_a_key_of_the_run_though_that_is_imported_later():
    done = subprocess.run([sys.executable, "-c", TOY], capture_output=True, text=True, check=True)
    assert done.stdout == "key num-rounds of toy is already declared differently by every run\n"


@pytest.mark.usefixtures("a_registry_of_its_own")
def test_a_method_cannot_redefine_a_key_of_the_run():
    with pytest.raises(ConfigError, match="key seed of toy is already declared differently by every run"):
        method("toy", seed=(int, option(1, "my own seed")))


@pytest.mark.usefixtures("a_registry_of_its_own")
def test_a_key_is_a_scalar_whose_default_is_allowed():
    with pytest.raises(ConfigError, match=r"key layers of toy is .*: declare a bool, int, float or str"):
        method("toy", layers=(tuple, option(0, "widths")))
    with pytest.raises(ConfigError, match="patience = 0 is not allowed"):
        method("toy", patience=(int, option(0, "rounds without progress", minimum=1)))


def test_another_process_is_told_the_keys_of_every_run_and_of_the_method_alone():
    config = resolve({"algorithm": "ngc", "cluster": "model", "seed": 5})
    told = relevant(config, "ngc")
    assert (told["cluster"], told["seed"], told["learning-rate"]) == ("model", 5, 0.1)
    assert not told.keys() & {"weighting", "sam-radius", "local-steps"}
    assert resolve(told).values == config.values
