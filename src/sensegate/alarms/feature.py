"""Feature: alarms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import msgspec
import structlog

from sensegate.alarms import rest, rest_channels
from sensegate.alarms.channels import AlarmChannels, ChannelKind
from sensegate.alarms.delivery import AlarmDeliveries, DeliveryPolicy
from sensegate.alarms.engine import AlarmEngine, EngineInputs
from sensegate.alarms.operations import AlarmOperations
from sensegate.alarms.probes import GatewayProbes
from sensegate.alarms.rest import ALARMS
from sensegate.alarms.rest_channels import CHANNELS, ChannelOffice
from sensegate.alarms.rules import AlarmRule, AlarmRules, check_rule
from sensegate.alarms.states import AlarmStates
from sensegate.alarms.transports import MailTransport, NoticeTransport, WebhookTransport, open_robots
from sensegate.authority.egress import Egress
from sensegate.bus import health
from sensegate.bus.names import PARTITION
from sensegate.errors import ConfigError
from sensegate.feature import Feature, FeatureSpec, Parts, owned
from sensegate.share.transports.webhook import open_webhooks
from sensegate.web.parts import LAG, REFUSED_COUNT

_log = structlog.get_logger("alarms")


async def _open(parts: Parts) -> Feature:
    core, share, stages = parts.core, parts.share, parts.stages
    config, audit = core.config, parts.callers.audit
    rules = AlarmRules(
        await core.bucket("alarm_rules"),
        audit,
        core.clock,
        home=config.division,
        of_profiles=_profile_rules(lambda: parts.lifecycle.profiles.set.alarms),
    )
    await rules.open()
    states = AlarmStates(
        core.log,
        core.clock,
        parts.callers.divisions,
        node=config.member_id,
        partition=PARTITION,
        events_ttl_h=config.store.readings_ttl_h,
    )
    engine = AlarmEngine(
        rules,
        states,
        core.clock,
        EngineInputs(
            reader=share.sharing.reader,
            devices=parts.lifecycle.devices,
            quality_hours=stages.quality.since,
            are_arrivals_known=lambda: share.last_value_task.is_complete,
            last_values=share.last_values,
            probes=_probes(parts),
            node=config.member_id,
            division=config.division,
        ),
    )
    operations = AlarmOperations(rules, states, audit, core.clock)
    office = await _open_channels(parts)
    states.on_change.append(lambda _alarm: office.deliveries.wake())
    return Feature(
        tasks=owned(
            {
                "alarms": engine.run,
                "alarm rules": rules.run,
                "alarm channels": office.channels.run,
                "alarm deliveries": office.deliveries.run,
            }
        ),
        parts={ALARMS: operations, CHANNELS: office},
        warnings=lambda: [*engine.warnings(), *office.deliveries.warnings()],
    )


async def _open_channels(parts: Parts) -> ChannelOffice:
    core, egress = parts.core, parts.core.config.egress
    policy, mail = Egress(egress.allow), core.config.alarms.mail
    bucket = await core.bucket("alarm_channels")
    channels = AlarmChannels(bucket, parts.callers.audit, core.clock, policy, mail)
    await channels.open()
    publisher = await parts.stack.enter_async_context(open_webhooks(policy, core.clock, timeout_s=egress.timeout_s))
    robot = await parts.stack.enter_async_context(open_robots(policy, core.clock, timeout_s=egress.timeout_s))
    transports: dict[ChannelKind, NoticeTransport] = {
        ChannelKind.WEBHOOK: WebhookTransport(publisher),
        ChannelKind.WECOM: robot,
        ChannelKind.DINGTALK: robot,
        ChannelKind.MAIL: MailTransport(mail, timeout_s=egress.timeout_s),
    }
    retry = DeliveryPolicy(egress.retry_initial_s, egress.retry_max_s)
    return ChannelOffice(channels, AlarmDeliveries(channels, core.log, core.clock, transports, retry))


def _probes(parts: Parts) -> GatewayProbes:
    core, refused_count = parts.core, parts.find(REFUSED_COUNT)

    async def refused() -> int | None:
        return await refused_count() if refused_count else None

    return GatewayProbes(
        core.clock,
        core.directory,
        totals=lambda: parts.stages.committer.totals,
        lag=parts.find(LAG) or (lambda: None),
        refused=refused,
        store_problems=partial(_store_problems, parts),
    )


def _store_problems(parts: Parts) -> int:
    return len(health.not_ready(parts.core))


def _profile_rules(alarms: Callable[[], Sequence[tuple[str, msgspec.Struct]]]) -> Callable[[], list[AlarmRule]]:
    """Return a function that gives the alarm rules of the profiles in force; `alarms`: (profile, its rule)."""
    rules: list[AlarmRule] = []
    made_of: Sequence[tuple[str, msgspec.Struct]] = ()

    def in_force() -> list[AlarmRule]:
        nonlocal rules, made_of
        if (current := alarms()) is not made_of:
            made_of = current
            rules = [rule for profile, alarm in current if (rule := _rule(profile, msgspec.structs.asdict(alarm)))]
        return rules

    return in_force


def _rule(profile: str, alarm: Mapping[str, object]) -> AlarmRule | None:
    """Return a rule of a profile as a rule of the gateway; None: it cannot be in force."""
    name = f"{profile}:{alarm['name']}"
    try:
        rule = msgspec.convert({**alarm, "name": name, "profile": profile}, AlarmRule)
        check_rule(rule)
    except (ConfigError, msgspec.ValidationError) as why:
        _log.warning("alarm rule of a profile not in force", profile=profile, rule=alarm["name"], reason=str(why))
        return None
    return rule


FEATURE = FeatureSpec(
    name="alarms",
    title="alarms: rules of profiles and operators, their states, a feed of events",
    config=("alarms",),
    buckets=("alarm_rules", "alarm_channels"),
    routes=(*rest.ROUTES, *rest_channels.ROUTES),
    commands=("alarm",),
    open=_open,
)
