"""REST: tasking capabilities of devices, and their tasks (words of OGC SensorThings Tasking)."""

from __future__ import annotations

import msgspec

from sensegate.authority.scope import Action
from sensegate.control.capabilities import Capability
from sensegate.control.commands import CommandDispatcher
from sensegate.control.tasks import DeviceTask, Scalar
from sensegate.web import listing
from sensegate.web.parts import PartKey
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, Call, Route, iso, payload_text


class NewTask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Task to give to a device."""

    task: str
    """Name of one of its tasking capabilities."""
    parameters: dict[str, Scalar] = {}
    expires_s: float = 0.0
    """Time after which the task expires; 0: that of the profile."""
    note: str = ""


class TaskRow(msgspec.Struct, frozen=True):
    """Task with its result."""

    id: str
    device: str
    task: str
    parameters: dict[str, Scalar]
    state: str
    """``queued``, ``sent``, ``transmitted``, ``acknowledged``, ``done``, ``failed``, ``expired`` or ``cancelled``."""
    topics: list[str]
    payload: str
    """Payload as it is sent; bytes that are no text begin with ``base64:``."""
    by: str
    created: str
    until: str
    sends: int
    sent: str
    ended: str
    note: str
    order: str
    """Mode order of which it is a part."""
    port: int = 0
    """Port of the frame, 0 if it is none."""
    reason: str = ""
    """Reason of the failure."""


TASKING = PartKey[CommandDispatcher]("tasking", absent="this gateway sends no commands to devices")


def tasking_of(call: Call) -> CommandDispatcher:
    """Return the sender of tasks. Raises `NotFound` at a gateway that has none."""
    return call.part(TASKING)


def _row(task: DeviceTask) -> TaskRow:
    return TaskRow(
        task.id,
        task.device,
        task.command.task,
        task.command.parameters,
        task.state,
        list(task.command.topics),
        payload_text(task.command.payload),
        task.by,
        iso(task.created),
        iso(task.expires),
        task.sends,
        iso(task.sent),
        iso(task.ended),
        task.note,
        task.order,
        task.command.frame.port if task.command.frame else 0,
        task.reason,
    )


async def _capabilities(call: Call) -> list[Capability]:
    """Tasking capabilities of a device: commands that it can be told to do, by the profile in force for it."""
    device = call.deps.devices.get(call.path("device"), call.principal)
    return list(tasking_of(call).capabilities(device))


async def _order(call: Call) -> TaskRow:
    """Tell a device to do something; the task says what became of it."""
    device = call.deps.devices.get(call.path("device"), call.principal)
    wanted = await call.body(NewTask)
    task = await tasking_of(call).order(
        device, wanted.task, wanted.parameters, by=call.principal, expires_s=wanted.expires_s, note=wanted.note
    )
    return _row(task)


async def _list(call: Call) -> listing.RowPage[TaskRow]:
    """Tasks of the devices in the caller's scope; sort=-id gives the newest first."""
    tasks = tasking_of(call).tasks.list(call.principal, call.text("device"))
    return listing.page_of(call, map(_row, tasks), TaskRow, "id")


async def _get(call: Call) -> TaskRow:
    """Get a task."""
    return _row(tasking_of(call).tasks.get(call.path("task"), call.principal))


async def _cancel(call: Call) -> TaskRow:
    """Give a task up that was not sent yet, or is only sent again."""
    return _row(await tasking_of(call).tasks.cancel(call.path("task"), by=call.principal))


ROUTES = tagged(
    "tasks",
    Route(
        "GET",
        f"{API}/devices/{{device}}/tasking-capabilities",
        _capabilities,
        action=Action.READ_REGISTRY,
        errors=(404,),
    ),
    Route(
        "POST",
        f"{API}/devices/{{device}}/tasks",
        _order,
        action=Action.TASK_DEVICES,
        body=NewTask,
        status=202,
        errors=(404, 415),
    ),
    Route("GET", f"{API}/tasks", _list, action=Action.READ_REGISTRY, query=listing.params(TaskRow)),
    Route("GET", f"{API}/tasks/{{task}}", _get, action=Action.READ_REGISTRY, errors=(404,)),
    Route("DELETE", f"{API}/tasks/{{task}}", _cancel, action=Action.TASK_DEVICES, errors=(404, 409)),
)
