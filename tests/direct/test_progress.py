"""Who waits for whom, and who follows whom: tables of events and decisions."""

import pytest

from ross_flwr.algorithms.messages import Refused
from ross_flwr.direct.pace import MARGIN, SLOWEST, Pace
from ross_flwr.direct.progress import Ask, GoOn, Jump, Progress, Wait

P = 10.0
"""Seconds of patience."""

END = 10**6
"""Exchanges of the run."""


def started(neighbors=2, *, exchanges=1, up=True, slowest=SLOWEST, behind_by=0.0):
    """The progress of a node whose neighbours n1, n2, … host agents 1, 2, …; it is time 0 and exchange 0."""
    homes = {k: f"n{k}" for k in range(1, neighbors + 1)}
    progress = Progress(homes, Pace(exchanges, P, 0.0, slowest), 0.0, end=END, behind_by=behind_by)
    progress.begin(0, 0.0)
    if up:
        for name in progress.standings:
            progress.answered(name, 0, 0.0)
    return progress


def wait(progress, exchange, now=0.0):
    progress.wait(exchange, [(int(name[1:]), 0) for name in progress.standings], now)


def arrive(progress, exchange, *sources, now=0.0):
    for source in sources:
        assert progress.announced(exchange, (source, 0), now)
        progress.arrived(exchange, (source, 0), now)


def in_step(progress, until):
    """Let a node do an exchange a second with all its neighbours, until it awaits this one."""
    for exchange in range(until):
        wait(progress, exchange, now=exchange + 1)
        arrive(progress, exchange, *range(1, len(progress.standings) + 1), now=exchange + 1)
        assert progress.decide(exchange + 1) == GoOn()
    wait(progress, until, now=until)


def claim(progress, *positions):
    """Let each neighbour say where it stands, and that it moves on there: where it waits, it is not followed."""
    for k, position in enumerate(positions):
        progress.told(f"n{k + 1}", position - 1)
        progress.told(f"n{k + 1}", position)


def show(progress, *positions):
    """Let each neighbour send something of the exchange that it claims to await."""
    for k, position in enumerate(positions):
        progress.announced(position, (k + 1, 0), 5.0)


def play(progress, events):
    """Each event is a time, what happens, and with what; a decision is what is decided at that time."""
    for now, what, *arguments in events:
        if what == "wait":
            wait(progress, *arguments, now=now)
        elif what == "arrive":
            arrive(progress, *arguments, now=now)
        elif what == "decide":
            assert progress.decide(now) == arguments[0], f"at {now}"
        elif what in ("announced", "answered"):
            getattr(progress, what)(*arguments, now)
        elif what in ("lost", "unanswered"):
            getattr(progress, what)(arguments[0], now)
        else:
            getattr(progress, what)(*arguments)


BOTH, ONE = frozenset({"n1", "n2"}), frozenset({"n2"})
LATE = GoOn(missing=((2, 0),))


@pytest.mark.parametrize(
    "events",
    [
        pytest.param(
            [(0, "wait", 0), (0, "decide", Wait(5)), (1, "arrive", 0, 1, 2), (1, "decide", GoOn())],
            id="who has everything goes on",
        ),
        pytest.param(
            [(0, "arrive", 0, 1, 2), (0, "arrive", 1, 1), (1, "wait", 0), (1, "decide", GoOn())],
            id="what came early counts",
        ),
        pytest.param(
            [
                (0, "wait", 0),
                (1, "arrive", 0, 1),
                (5, "decide", Ask(ONE)),
                (5, "decide", Wait(10)),
                (6, "told", "n2", 0),
                (10, "decide", Ask(ONE)),
                (10, "decide", Wait(15)),
                (11, "told", "n2", 0),
                (11, "decide", LATE),
            ],
            id="a late neighbour that waits for nobody is missing after the patience",
        ),
        pytest.param(
            [
                (0, "wait", 0),
                (5, "decide", Ask(BOTH)),
                (10, "decide", Ask(BOTH)),
                (14, "decide", Wait(15)),
                (15, "decide", GoOn(missing=((1, 0), (2, 0)))),
            ],
            id="neighbours that do not even answer are missing a little later",
        ),
        pytest.param(
            [
                (0, "begin", 8, 0),
                (0, "wait", 8),
                (1, "arrive", 8, 1),
                (5, "decide", Ask(ONE)),
                (6, "told", "n2", 7),
                (6, "decide", Wait(22.5)),
                (22.5, "decide", LATE),
            ],
            id="a late neighbour that is behind gets the same time again, and a little more",
        ),
        pytest.param(
            [
                (0, "begin", 8, 0),
                (0, "wait", 8),
                (1, "arrive", 8, 1),
                (5, "decide", Ask(ONE)),
                (6, "told", "n1", 7),
                (6, "decide", Wait(10)),
            ],
            id="one that is behind but not late excuses nobody",
        ),
        pytest.param(
            [(0, "wait", 0), (1, "arrive", 0, 1), (1, "announced", 1, (2, 0)), (1, "decide", LATE)],
            id="an envelope that its sender skipped is not waited for",
        ),
        pytest.param(
            [(0, "wait", 0), (1, "arrive", 0, 1), (1, "lost", "n2"), (1, "decide", LATE)],
            id="a neighbour that is lost is not waited for",
        ),
        pytest.param(
            [(0, "lost", "n2"), (1, "answered", "n2", 0), (1, "wait", 0), (1, "arrive", 0, 1), (1, "decide", Wait(6))],
            id="one that is back where this node is, is waited for",
        ),
        pytest.param(
            [
                (0, "begin", 50, 0),
                (0, "lost", "n2"),
                (1, "answered", "n2", 10),
                (1, "answered", "n1", 50),
                (1, "wait", 50),
                (1, "arrive", 50, 1),
                (1, "decide", LATE),
            ],
            id="one that is back but far behind is not waited for",
        ),
    ],
)
def test_a_node_waits_for_those_who_may_still_come(events):
    play(started(), events)


def test_a_neighbour_that_has_not_appeared_has_the_time_of_one_exchange():
    progress = started(up=False)
    events = [(1, "unanswered", "n2"), (1, "wait", 0), (1, "arrive", 0, 1), (1, "decide", Wait(6))]
    play(progress, [*events, (9.9, "unanswered", "n2"), (9.9, "decide", Ask(frozenset()))])
    play(progress, [(10.1, "unanswered", "n2"), (10.1, "decide", LATE)])


def test_a_neighbour_that_misses_three_exchanges_is_given_up_until_something_arrives():
    progress = started()
    for exchange in range(3):
        now = 100.0 * exchange
        play(progress, [(now, "wait", exchange), (now, "arrive", exchange, 1), (now + 5, "decide", Ask(ONE))])
        play(progress, [(now + 10, "decide", Ask(ONE)), (now + 10, "told", "n2", exchange)])
        assert progress.decide(now + 10) == GoOn(((2, 0),), ("n2",) if exchange == 2 else ())
    play(progress, [(300, "wait", 3), (300, "arrive", 3, 1), (310, "decide", LATE)])
    play(progress, [(400, "wait", 4), (400, "arrive", 4, 1, 2), (400, "decide", GoOn())])
    play(progress, [(500, "wait", 5), (500, "arrive", 5, 1), (500, "decide", Wait(505))])


def test_a_neighbour_that_is_given_up_but_near_has_the_time_of_the_fastest_pass():
    """It was always a moment too late; who never waited again would never be in step again."""
    progress = started()
    in_step(progress, 8)
    progress.standings["n2"].misses = 3
    play(progress, [(8, "arrive", 8, 1), (8.5, "decide", Wait(9)), (9, "decide", LATE)])
    progress.told("n2", 9 - 3 - 2 - 1)
    play(progress, [(10, "wait", 9), (10, "arrive", 9, 1), (10, "decide", LATE)])


def test_only_the_awaited_exchange_and_the_next_have_room():
    progress = started()
    in_step(progress, 8)
    assert [progress.announced(exchange, (1, 0), 8) for exchange in (7, 8, 9, 10)] == [False, True, True, False]


@pytest.mark.parametrize(
    ("positions", "followed"),
    [
        ([100, 100], 100),
        ([100, 120], 100),
        ([100, 4], None),
        ([END, 4], None),
        ([END], None),
        ([100, 100, 4], 100),
        ([END, 5, 4], None),
        ([END, 100, 100], 100),
        ([END, 100, 100, 4], 100),
        ([END, 100, 4, 4], None),
        ([9, 9], None),
        ([END, END], (5 + 5) * 100),
    ],
)
def test_a_node_that_was_not_away_follows_more_than_half_of_its_neighbours(positions, followed):
    """One alone may lie, whatever it claims and sends; what is on its way explains a small lead; time sets a bound."""
    progress = started(len(positions))
    in_step(progress, 4)
    claim(progress, *positions)
    show(progress, *positions)
    assert (progress.decide(5.0) == Jump()) == (followed is not None)
    if followed:
        assert progress.land(10**6, 5.0) == followed + 2


def test_a_single_neighbour_is_not_followed_for_the_time_that_was_lost_on_it():
    progress = started()
    in_step(progress, 4)
    for exchange in range(4, 40):
        now = 5.0 + 20.0 * (exchange - 4)
        play(progress, [(now, "wait", exchange), (now, "arrive", exchange, 1), (now, "announced", 60, (2, 0))])
        progress.told("n2", 60 + exchange)
        assert progress.decide(now + 15) == GoOn(((2, 0),), ("n2",) if exchange == 6 else ())


def test_neighbours_that_have_yet_to_appear_count_as_neighbours_that_are_not_ahead():
    progress = started(2, up=False)
    play(progress, [(0, "wait", 0), (0.1, "answered", "n1", 50), (0.1, "announced", 50, (1, 0))])
    assert progress.decide(5.0) == Ask(frozenset())


@pytest.mark.parametrize("position", [-1, END + 1, 2**62])
def test_a_position_outside_the_run_is_refused_and_changes_nothing(position):
    progress = started()
    in_step(progress, 4)
    before = [vars(standing).copy() for standing in progress.standings.values()]
    for event in (
        lambda: progress.told("n1", position),
        lambda: progress.answered("n1", position, 5.0),
        lambda: progress.refused("n1", position),
        lambda: progress.announced(position, (1, 0), 5.0),
    ):
        with pytest.raises(Refused, match="beyond-end"):
            event()
    assert [vars(standing) for standing in progress.standings.values()] == before


@pytest.mark.parametrize(
    ("positions", "reached"),
    [([60, 5], 60), ([END, 5], 105), ([END], 104), ([60, 5, 60], 60), ([60, 5, 5], None)],
)
def test_a_node_that_was_away_follows_half_of_them_as_far_as_elapsed_time_allows(positions, reached):
    """The others may have been away too. They were in step in exchange 3 at four seconds, and did one a second."""
    progress = started(len(positions))
    in_step(progress, 4)
    claim(progress, *positions)
    show(progress, *positions)
    assert (progress.decide(105.0) == Jump()) == (reached is not None)
    if reached:
        assert progress.land(10**6, 105.0) == reached + 2


def test_a_node_that_was_away_does_not_follow_one_that_sends_nothing_from_where_it_claims_to_be():
    progress = started()
    in_step(progress, 4)
    claim(progress, 60, 4)
    assert not isinstance(progress.decide(105.0), Jump)


def test_the_time_away_makes_up_for_jumps_only_once_and_not_for_ever():
    for jumps in (True, False):
        progress = started()
        in_step(progress, 4)
        claim(progress, 60, 4)
        show(progress, 60, 4)
        if jumps:
            assert progress.decide(105.0) == Jump()
            progress.land(10**6, 105.0)
            progress.told("n1", 900)
            show(progress, 900, 4)
            wait(progress, 62, 105.0)
            assert progress.decide(105.0) == Jump()
            assert progress.land(10**6, 105.0) == 62 + 101 - 56 + 2
        else:
            wait(progress, 4, 150.0)
            assert progress.decide(150.0) == Jump()
            wait(progress, 4, 190.0)
            assert not isinstance(progress.decide(220.0), Jump)


def test_a_connected_neighbour_cannot_be_ahead_before_it_has_waited():
    """However short the passes are: the node has just been busy with something else."""
    progress = started(1)
    in_step(progress, 4)
    claim(progress, END)
    show(progress, END)
    assert not isinstance(progress.decide(4 + P), Jump)
    assert progress.decide(4 + P + 0.1) == Jump()


def test_a_node_that_begins_late_follows_as_far_as_the_others_have_had_time():
    progress = started(1, up=False, behind_by=200.0)
    play(progress, [(0, "answered", "n1", END), (4, "wait", 0), (4, "announced", END, (1, 0))])
    assert progress.decide(4.0) == GoOn(((1, 0),)), "it does not know yet how long a pass takes"
    wait(progress, 1, now=4)
    assert progress.decide(4.0) == Jump()
    assert progress.land(10**6, 4.0) == 204 // 4 + 2


def test_neighbours_that_begin_far_ahead_are_followed_only_once_they_go_on():
    """They were away, go on in exchange 40, and wait there."""
    progress = started()
    in_step(progress, 10)
    for name in ("n1", "n2", "n1", "n2"):
        progress.refused(name, 40)
    assert not isinstance(progress.decide(50.0), Jump)
    progress.refused("n1", 41)
    assert not isinstance(progress.decide(50.0), Jump)
    progress.refused("n2", 41)
    assert progress.decide(50.0) == Jump()


def test_a_node_goes_on_ahead_of_its_neighbours_by_what_they_do_meanwhile():
    progress = started(exchanges=2)
    wait(progress, 0)
    claim(progress, 100, 101)
    assert progress.decide(1.0) == Jump()
    claim(progress, 110, 111)
    assert progress.land(1000, 3.0) == 55 + 5 + 2
    assert progress.exchange == 2 * 62


def test_a_node_goes_on_no_later_than_the_rounds_end_and_never_in_the_same_pass():
    progress = started(exchanges=2)
    wait(progress, 1)
    claim(progress, END, END)
    assert progress.decide(1.0) == Jump()
    assert progress.land(70, 1.0) == 70
    wait(progress, 140)
    claim(progress, 3, 3)
    assert progress.land(90, 3.0) == 71, "the neighbours changed their minds"


def test_a_node_that_jumps_waits_for_those_alone_whom_it_follows():
    progress = started(3)
    wait(progress, 0)
    claim(progress, 100, 100, 5)
    assert progress.decide(1.0) == Jump()
    progress.land(1000, 1.0)
    assert {name for name, standing in progress.standings.items() if standing.awaited} == {"n1", "n2"}


def test_a_node_that_ran_ahead_alone_waits_for_its_neighbours_for_as_long_as_it_was_gone():
    progress = started()
    in_step(progress, 4)
    for name in ("n1", "n2"):
        progress.lost(name, 4.0)
    for exchange in range(4, 204):
        play(progress, [(exchange, "wait", exchange)])
        assert isinstance(progress.decide(exchange), GoOn)
    play(progress, [(204, "wait", 204), (204, "answered", "n1", 50), (204, "decide", Wait(209))])
    play(progress, [(204, "answered", "n2", 50)])
    assert [progress.standings[name].misses for name in ("n1", "n2")] == [3 - 10, 3 - 10]


def test_a_node_that_fell_silent_goes_on_where_its_neighbours_are():
    """It was away for a minute, comes back with nothing but the first exchange, and skips those that it missed."""
    progress = started(up=False, behind_by=60.0)
    play(progress, [(0.1, "answered", "n1", 60), (0.1, "wait", 0), (0.1, "decide", Wait(5.1))])
    play(progress, [(0.2, "answered", "n2", 60), (0.2, "decide", Jump())])
    assert progress.land(1000, 0.3) == 62
    play(progress, [(1, "wait", 62), (1, "decide", Wait(6)), (3, "arrive", 62, 1, 2), (3, "decide", GoOn())])


def test_a_neighbour_that_claims_more_once_it_is_followed_leads_nobody_beyond_the_others():
    """They are at 80. It had claimed 30, so they seem to have done 50 passes in a tenth of a second."""
    progress = started()
    in_step(progress, 4)
    claim(progress, 30, 80)
    assert progress.decide(4.0) == Jump()
    progress.told("n1", 80)
    assert progress.land(1000, 4.1) == 80 + 1 + MARGIN


def test_a_node_that_fell_silent_is_not_waited_for_until_its_neighbours_are_where_it_came_back():
    progress = started()
    in_step(progress, 4)
    play(progress, [(4, "lost", "n2")])
    for exchange in range(4, 60):
        play(progress, [(exchange, "wait", exchange), (exchange, "arrive", exchange, 1), (exchange, "decide", LATE)])
    play(progress, [(60, "answered", "n2", 0), (60, "wait", 60), (60, "arrive", 60, 1), (60, "decide", LATE)])
    assert not progress.announced(62 + 1, (2, 0), 60.1), "it came back two ahead, which is too early"
    play(progress, [(61, "wait", 61), (61, "arrive", 61, 1), (61, "decide", LATE)])
    play(progress, [(62, "arrive", 62, 2), (62, "wait", 62), (62, "decide", Wait(67))])
    play(progress, [(63, "arrive", 62, 1), (63, "decide", GoOn())])
    play(progress, [(64, "wait", 63), (64, "arrive", 63, 1), (64, "decide", Wait(69))])


def test_a_silent_neighbour_is_greeted_after_growing_pauses_and_anew_after_a_long_connection():
    progress = started(1, up=False)
    pauses = []
    now = 0.0
    for _ in range(9):
        progress.unanswered("n1", now)
        pauses.append(round(progress.standings["n1"].greet_at - now, 2))
        now = progress.standings["n1"].greet_at
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    for lasted, pause in ((1, 5.0), (100, 0.05)):
        progress.answered("n1", 0, now)
        progress.lost("n1", now + lasted)
        assert progress.standings["n1"].greet_at == pytest.approx(now + lasted + pause)


def stall(progress, exchange, now):
    """Let n2 deliver only every third exchange and always be behind; return when the node goes on, and how."""
    wait(progress, exchange, now)
    arrive(progress, exchange, 1, now=now)
    if exchange % 3 == 0:
        arrive(progress, exchange, 2, now=now)
    while not isinstance(decision := progress.decide(now), GoOn):
        if isinstance(decision, Ask):
            progress.told("n2", exchange - 1)
        else:
            now = decision.until
    return now, decision


def test_a_neighbour_spends_the_time_for_which_it_is_waited_for():
    progress = started()
    in_step(progress, 3)
    began = now = 3.0
    overdue, lasted = [], []
    for exchange in range(3, 300):
        begun, (now, decision) = now, stall(progress, exchange, now + 1)
        lasted.append(now - begun)
        overdue += decision.overdue
    assert lasted[1:3] == [1 + 2 * P + 2.5] * 2, "at first it gets what anybody gets"
    assert now - began - len(lasted) <= 6 * P + 0.1 * (now - began) + 0.5 * len(lasted)
    assert max(lasted[100:]) < 3
    assert set(overdue) == {"n2"}
    assert progress.standings["n2"].budget.left(now + 60 * P) == 6 * P, "it regains what it spent"


def test_a_neighbour_spends_nothing_up_to_the_slowness_that_is_allowed_and_beyond_it_all_the_time():
    """The node and the other neighbour take a second."""
    for slowest, late, spent in ((1.7, 0.65, 0.0), (1.7, 2.0, 10 * 2.0 - 9 * 3 * 0.1), (4.0, 2.0, 0.0)):
        progress, now = started(slowest=slowest), 0.0
        for exchange in range(11):
            now += 1
            wait(progress, exchange, now)
            arrive(progress, exchange, 1, now=now)
            assert isinstance(progress.decide(now), Wait)
            now += late
            arrive(progress, exchange, 2, now=now)
            assert progress.decide(now) == GoOn()
        assert progress.standings["n2"].budget.left(now) == pytest.approx(6 * P - spent)


def test_a_neighbour_that_does_not_read_is_waited_for_from_the_same_budget():
    progress = started()
    in_step(progress, 4)
    waited = 0.0
    for _ in range(20):
        room = progress.room("n1", waited)
        progress.held_up("n1", waited, waited + room)
        waited += room
    assert 6 * P <= waited < 9 * P
    assert progress.room("n2", waited) == P


def test_nobody_spends_anything_while_the_node_is_away():
    progress = started()
    in_step(progress, 4)
    assert isinstance(progress.decide(1000.0), GoOn)
    assert progress.standings["n1"].budget.left(1000.0) == 6 * P


def test_who_begins_a_little_later_than_others_spends_nothing():
    for late, left in ((20.0, 6 * P), (25.0, 6 * P - 5.0)):
        progress = started(up=False)
        play(progress, [(0, "wait", 0), (0, "arrive", 0, 1), (late, "arrive", 0, 2), (late, "decide", GoOn())])
        assert progress.standings["n2"].budget.left(late) == left
