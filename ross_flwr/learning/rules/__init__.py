"""Rules that combine a neighbourhood's vectors into one; some of the vectors may lie.

A rule takes the agent's own vector and those of the neighbours that it heard. Up to f of these are Byzantine: their
sender may know everything and need not follow the protocol. With enough honest vectors (see `Rule.obstacle`), a robust
rule stays near them, whatever the others are.

Every rule works in every method that mixes: under the key `aggregator`, or as an object, ``DPSGD(rule=Median())``. To
add one, subclass `Rule`, or `Weighing` or `Stacked`, and decorate it with `register_rule`.
"""

from ross_flwr.learning.rules.averages import Mean, VarianceCorrectedMean
from ross_flwr.learning.rules.clipping import ClippedGossip
from ross_flwr.learning.rules.coordinates import MeaMed, Median, TrimmedMean, TrimmedNeighbors
from ross_flwr.learning.rules.distances import MDA, Bulyan, Krum, MultiKrum
from ross_flwr.learning.rules.judging import FLTrust, ShapleyModels, Softmin
from ross_flwr.learning.rules.pre_aggregations import NNM, PRE_AGGREGATIONS, Bucketing
from ross_flwr.learning.rules.rule import RULES, Bounded, Rule, Stacked, View, Weighing, register_rule, require_feasible
from ross_flwr.learning.rules.screening import BALANCE, IOS, UBAR, NearestNeighbors, ResilientP2P
from ross_flwr.learning.rules.subspaces import CAF, Flag, GeometricMedian

__all__ = [
    "BALANCE",
    "CAF",
    "IOS",
    "MDA",
    "NNM",
    "PRE_AGGREGATIONS",
    "RULES",
    "UBAR",
    "Bounded",
    "Bucketing",
    "Bulyan",
    "ClippedGossip",
    "FLTrust",
    "Flag",
    "GeometricMedian",
    "Krum",
    "MeaMed",
    "Mean",
    "Median",
    "MultiKrum",
    "NearestNeighbors",
    "ResilientP2P",
    "Rule",
    "ShapleyModels",
    "Softmin",
    "Stacked",
    "TrimmedMean",
    "TrimmedNeighbors",
    "VarianceCorrectedMean",
    "View",
    "Weighing",
    "register_rule",
    "require_feasible",
]
