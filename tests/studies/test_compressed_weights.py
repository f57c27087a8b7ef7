"""The study of compressed cross-gradients: the games that it compares."""

from statistics import fmean

import pytest

from ross_flwr.compression.options import read_codecs
from ross_flwr.config import ConfigError, resolve
from ross_flwr.studies.compressed_weights import shifts

KEYS = {"algorithm": "ross", "num-agents": 5, "topology": "complete", "attackers": 1, "num-rounds": 8, "hidden": 16}


def test_what_a_codec_leaves_out_moves_weights_and_ranks():
    codecs = {name: read_codecs(name)[""] for name in ("topk(1)", "int8", "topk(0.001)")}
    found = list(shifts(resolve(KEYS | {"evaluate-every": 8}), codecs))
    assert len(found) == 2 * 4 * len(codecs)  # two rounds, four honest agents
    by_codec = {name: [shift for shift in found if shift.codec == name] for name in codecs}
    whole, fine, coarse = by_codec.values()
    assert [shift.ranks for shift in whole] == pytest.approx([1.0] * 8)
    assert [shift.moved for shift in whole] == [0.0] * 8
    assert 0 < fmean(shift.moved for shift in fine) < 0.1 < fmean(shift.moved for shift in coarse)
    assert fmean(shift.ranks for shift in coarse) < fmean(shift.ranks for shift in fine)


def test_of_ross_plus_it_is_told_who_else_passes_its_screen():
    codecs = {name: read_codecs(name)[""] for name in ("int8", "randomk(0.001)")}
    keys = KEYS | {"algorithm": "ross-plus", "num-rounds": 4, "evaluate-every": 4}
    found = list(shifts(resolve(keys), codecs))
    fine, coarse = ([shift for shift in found if shift.codec == name] for name in codecs)
    assert max(shift.moved for shift in fine) < 0.1 < max(shift.moved for shift in coarse)


def test_only_ross_plays_this_game():
    with pytest.raises(ConfigError, match="algorithm = 'dpsgd' plays no game"):
        next(shifts(resolve(KEYS | {"algorithm": "dpsgd"}), {}))
