// Sharing: feeds and subscribers.
import { html } from "./preact.js";
import { Link, t, listPage } from "./lib.js";

export const Feeds = listPage("page.feeds", "/api/v1/feeds", [{ name: "name", show: (value) => html`<${Link} to=${`/console/records?feed=${encodeURIComponent(value)}`}>${value}<//>` }, { name: "description" }, { name: "divisions" }, { name: "domains" }, { name: "properties" }, { name: "kinds" }, { name: "grade_max", numeric: true }]);
export const Subscribers = listPage("page.subscribers", "/api/v1/subscribers", [{ name: "subscriber" }, { name: "feed" }, { name: "delivery" }, { name: "state", badge: true }, { name: "lag_entries", numeric: true }, { name: "lag_s", numeric: true }, { name: "records", numeric: true }, { name: "failures", numeric: true }, { name: "last", time: true }, { name: "reason" }], { empty: t("noSubscribers") });
