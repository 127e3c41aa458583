// Tasks, moves of devices.
import { html } from "./preact.js";
import { Link, device, t, listPage } from "./lib.js";

export const Tasks = listPage("page.tasks", "/api/v1/tasks", [{ name: "id" }, { name: "device", show: (value) => html`<${Link} to=${device(value)}>${value}<//>` }, { name: "task" }, { name: "state", badge: true }, { name: "created", time: true }, { name: "by" }, { name: "sends", numeric: true }, { name: "note" }], { empty: t("noTasks") });
export const Moves = listPage("page.moves", "/api/v1/moves", [{ name: "id" }, { name: "device" }, { name: "source" }, { name: "target" }, { name: "stage", badge: true }, { name: "requested", time: true }, { name: "by" }, { name: "reason" }], { empty: t("noMoves"), search: false, sortable: false });
