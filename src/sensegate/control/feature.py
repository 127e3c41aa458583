"""Feature: tasks of devices, and mode orders, which give many tasks at once, open grants and shed readings."""

from __future__ import annotations

from sensegate.control import rest_modes, rest_tasks
from sensegate.control.capabilities import TaskingCapabilities
from sensegate.control.commands import CommandDispatcher
from sensegate.control.emergency_grants import EmergencyGrants
from sensegate.control.mode_executor import ModeOrderExecutor
from sensegate.control.modes import ModeRegistry
from sensegate.control.rest_modes import MODES
from sensegate.control.rest_tasks import TASKING
from sensegate.control.tasks import TaskQueue
from sensegate.feature import Feature, FeatureSpec, Parts, owned
from sensegate.web.parts import SHED


async def _open(parts: Parts) -> Feature:
    core, audit, devices = parts.core, parts.callers.audit, parts.lifecycle.devices
    profiles, sharing = parts.lifecycle.profiles, parts.share.sharing
    tasks = TaskQueue(await core.bucket("tasks"), audit, core.clock)
    await tasks.load()
    modes = ModeRegistry(
        await core.bucket("modes"), audit, core.clock, person_behind=parts.callers.tokens.person_behind
    )
    await modes.load()
    dispatcher = CommandDispatcher(
        tasks,
        devices,
        TaskingCapabilities(lambda: profiles.set, devices),
        core.clock,
        channels=parts.sources.channels,
        topics=lambda device: parts.topics_of(device)[0],
    )
    grants = EmergencyGrants(sharing.grants, sharing.feeds, core.clock)
    executor = ModeOrderExecutor(modes, dispatcher, devices, core.clock, grants)
    return Feature(
        tasks=owned({"tasks": tasks.watch, "modes": modes.watch, "tasking": dispatcher.run, "emergency": executor.run}),
        observers=(lambda specs, messages, batch: dispatcher.observe(specs, messages, batch.readings),),
        parts={TASKING: dispatcher, MODES: modes, SHED: executor.shed},
    )


FEATURE = FeatureSpec(
    name="control",
    title="tasks of devices, and mode orders",
    buckets=("tasks", "modes"),
    routes=(*rest_tasks.ROUTES, *rest_modes.ROUTES),
    commands=("task", "mode"),
    open=_open,
)
