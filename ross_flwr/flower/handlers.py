"""What a node does with each message of the ServerApp."""

from collections.abc import Callable
from hashlib import sha256

from flwr.app import Context, Message, RecordDict

from ross_flwr.config import Config, ConfigError, host_and_port
from ross_flwr.direct.certificates import Credentials
from ross_flwr.direct.channels import Neighbor
from ross_flwr.direct.neighborhood import Neighborhood
from ross_flwr.engine.host import Host
from ross_flwr.engine.rounds import end_pass
from ross_flwr.files import home
from ross_flwr.flower.hosting import LEFT_OUT, Hosted, MakeTask, begin, config_of, forget, left, rest, wake
from ross_flwr.flower.options import FlowerOptions
from ross_flwr.flower.protocol import Answer, Call, Report, RoundReport, Segment, Setup, model_key
from ross_flwr.flower.records import from_json, pack, record_of, unpack
from ross_flwr.graph.topology import Place
from ross_flwr.privacy.seeds import renew
from ross_flwr.runs.options import MachineOptions, RunOptions

__all__ = ["activate", "done", "models", "segment", "who"]


def activate(message: Message, context: Context, make_task: MakeTask | None = None) -> Message:
    """Run the step that the message names; after a pass's last step, also the next pass's first if it is relayed.

    The message holds what arrived for the agents here; the reply holds what they send. ``context.state`` keeps all that
    the agents carry to the next activation.
    """
    content = message.content
    hosted = _begin(content, context, make_task) if Setup.key in content.config_records else wake(context, make_task)
    host, assembly = hosted.host, hosted.assembly
    setup = Setup.of(context.state)
    host.places = assembly.graphs.places(setup.places)  # not those of an earlier segment
    call = Call.of(content)
    arrived = unpack(content, assembly.task.model.device, host.mailroom.drop)
    leaving = host.activate(call.pass_number, call.step, arrived)
    reply = RecordDict()
    last = len(host.algorithm.steps) - 1
    if call.step == last:
        if ended := end_pass(host, assembly.schedule, call.pass_number):
            number, reports = ended
            reply[Report.key] = _report(host, [RoundReport(number, None, reports)]).to_record()
        if last > 0 and call.pass_number + 1 < call.end:
            leaving = host.activate(call.pass_number + 1, 0)
    for key, record in pack(leaving).items():
        reply[key] = record
    rest(hosted, context)
    return Message(reply, reply_to=message)


def models(message: Message, context: Context, make_task: MakeTask | None = None) -> Message:
    """Reply with the model of every agent here, each under its own parameter names."""
    return Message(_named_models(wake(context, make_task), context), reply_to=message)


def who(
    message: Message, context: Context, make_task: MakeTask | None = None, check: Callable[[Config], None] | None = None
) -> Message:
    """Reply with the part of the data that is here, if Flower numbers the parts, and with what neighbours have to know.

    Where nodes talk directly, that is this node's name and address, or what is wrong with them. What `check` refuses in
    the configuration is wrong too.
    """
    part = context.node_config.get("partition-id")
    partition = part if isinstance(part, int) else None
    try:
        config = config_of(Setup.of(message.content))
        if check:
            check(config)
        direct = config.part(FlowerOptions).transport != "relay"
        name, address, authority = "", "", ""
        if direct:
            name, address, credentials = _identity(context)
            authority = sha256(credentials.authority).hexdigest()
        setup = Setup.of(message.content)
        held = left(setup, context, make_task) if setup.options.get("resume") else {}
        answer = Answer(partition, name, address, authority=authority, held=held)
    except ConfigError as error:
        answer = Answer(partition, problem=str(error))
    return Message(RecordDict({Answer.key: answer.to_record()}), reply_to=message)


def done(message: Message, context: Context) -> Message:
    """Forget the agents here, and what ``state-dir`` holds of them: the run is done."""
    forget(context)
    return Message(RecordDict(), reply_to=message)


def segment(message: Message, context: Context, make_task: MakeTask | None = None) -> Message:
    """Run the rounds that the message names, talking to the neighbours directly; reply with what happened in each."""
    call = Segment.of(message.content)
    hosted = _begin(message.content, context, make_task)
    host, config, schedule = hosted.host, hosted.config, hosted.assembly.schedule
    run, machine, flower = config.part(RunOptions), config.part(MachineOptions), config.part(FlowerOptions)
    finished = max((ran for ran, _ in host.ran.values()), default=-1) + 1
    first = max(call.first, finished // run.batches_per_round + 1)  # the previous process may have died midway
    rounds = []
    with _neighborhood(hosted, context, call) as neighborhood:
        for round in neighborhood.rounds(schedule, first, call.last):
            rounds.append(RoundReport(round.number, round.seconds, [*round.reports]))
            if flower.state_dir and machine.checkpoint_every and round.number % machine.checkpoint_every == 0:
                _save(hosted, context)
    reply = RecordDict({Report.key: _report(host, rounds).to_record()})
    rest(hosted, context)
    if flower.return_model == "final" and call.last == run.num_rounds:
        reply.update(_named_models(hosted, context))
    return Message(reply, reply_to=message)


def _begin(content: RecordDict, context: Context, make_task: MakeTask | None) -> Hosted:
    """Return the agents that the message assigns to this node, with new keys: the last process may have died midway."""
    begin(content, context, make_task)
    hosted = wake(context, make_task)
    renew(hosted.host.agents.values())
    return hosted


def _save(hosted: Hosted, context: Context) -> None:
    """Write what the agents carry under `state-dir`. If that fails, count it and go on: the file before stays."""
    try:
        rest(hosted, context)
    except ConfigError as error:
        hosted.host.mailroom.refusals.add("unsaved", str(error))


def _neighborhood(hosted: Hosted, context: Context, call: Segment) -> Neighborhood:
    """Return the agents here among their neighbours, in the places of a segment."""
    host, assembly = hosted.host, hosted.assembly
    begins = (call.first - 1) * assembly.schedule.passes
    options = hosted.config.part(FlowerOptions)

    def place(agent: int, pass_number: int) -> Place:
        several = call.places[agent]
        return several[min(pass_number - begins, len(several) - 1)]

    host.places = place
    _, address, credentials = _identity(context)
    return Neighborhood(
        host,
        [Neighbor(name, address, tuple(agents)) for name, address, agents in call.neighbors],
        address=address,
        topology=call.topology,
        layout=assembly.task.model.digest,
        passes=assembly.schedule.total_passes,
        patience=options.phase_timeout,
        edges={(j, i) for i, places in call.places.items() for row, _ in places for j in row if j not in host.agents},
        credentials=credentials,
        behind_by=call.behind_by,
        slowest=options.slowest,
    )


def _identity(context: Context) -> tuple[str, str, Credentials]:
    """Return this node's name and address among its neighbours, and the credentials that prove the name."""
    address, certs = (str(context.node_config.get(key, "")) for key in ("peer-address", "peer-certs"))
    if not certs:
        raise ConfigError(
            "transport = 'direct' needs certificates: start each SuperNode with peer-address and peer-certs in its "
            "--node-config; `ross-flwr certs` makes them"
        )
    host_and_port(address, f"peer-address = '{address}'")
    credentials = Credentials.read(home(certs))
    return credentials.name, address, credentials


def _report(host: Host, rounds: list[RoundReport]) -> Report:
    """Return what happened here since the last report."""
    report = Report(rounds, dict(host.dropped))
    host.dropped.clear()
    return report


def _named_models(hosted: Hosted, context: Context) -> RecordDict:
    """Return the model of every agent here, as far as it is learnt, under the key that the ServerApp expects."""
    named, left_out = hosted.assembly.task.model.named, from_json(context.state.config_records[LEFT_OUT])
    models = {i: named(agent["model"]) for i, agent in hosted.host.agents.items()}
    return RecordDict(
        {
            model_key(i): record_of({name: part for name, part in model.items() if name not in left_out})
            for i, model in models.items()
        }
    )
