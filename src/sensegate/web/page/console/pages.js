// The addresses of the console and the page of each; the navigation has those of which the caller has one of the rights. An unscoped page shows all that the caller may see, whatever scope is chosen. A page is loaded when it is opened: its file exports the component that `show` names.
export const PAGES = [
  { path: "/console/", title: "page.overview", group: "now", key: "o", load: () => import("./overview.js"), show: "Overview" },
  { path: "/console/devices", title: "page.devices", group: "now", key: "d", right: "read_registry", load: () => import("./devices.js"), show: "Devices" },
  { path: "/console/devices/:id", title: "page.devices", parent: "/console/devices", load: () => import("./devices.js"), show: "Device" },
  { path: "/console/map", title: "page.map", group: "now", key: "z", right: "read_registry", load: () => import("./map.js"), show: "DeviceMap" },
  { path: "/console/video", title: "page.video", group: "now", key: "v", right: "read_readings", load: () => import("./video.js"), show: "Video" },
  { path: "/console/survey", title: "page.survey", group: "now", key: "x", right: "read_registry", load: () => import("./survey.js"), show: "Survey" },
  { path: "/console/labels", title: "page.labels", parent: "/console/survey", load: () => import("./labels.js"), show: "Labels" },
  { path: "/console/alarms", title: "page.alarms", group: "now", key: "l", right: "read_alarms", load: () => import("./alarms.js"), show: "Alarms" },
  { path: "/console/records", title: "page.records", group: "now", key: "r", right: "read_readings", load: () => import("./records.js"), show: "Records" },
  { path: "/console/quarantine", title: "page.quarantine", group: "now", key: "q", right: "read_quarantine", load: () => import("./quarantine.js"), show: "Quarantine" },
  { path: "/console/profiles", title: "page.profiles", group: "now", key: "p", load: () => import("./profiles.js"), show: "Profiles" },
  { path: "/console/profiles/:vendor/:model", title: "page.profiles", parent: "/console/profiles", load: () => import("./profiles.js"), show: "Profile" },
  { path: "/console/editor", title: "page.profiles", parent: "/console/profiles", load: () => import("./editor.js"), show: "Editor" },
  { path: "/console/feeds", unscoped: true, title: "page.feeds", group: "sharing", key: "f", load: () => import("./sharing.js"), show: "Feeds" },
  { path: "/console/feeds/:name", title: "page.feeds", parent: "/console/feeds", load: () => import("./sharing.js"), show: "Feed" },
  { path: "/console/catalogue", title: "page.catalogue", group: "sharing", key: "c", right: "read_catalogue", load: () => import("./sharing.js"), show: "Catalogue" },
  { path: "/console/applications", unscoped: true, title: "page.applications", group: "sharing", key: "b", right: "read_catalogue", load: () => import("./sharing.js"), show: "Applications" },
  { path: "/console/grants", unscoped: true, title: "page.grants", group: "sharing", key: "w", load: () => import("./sharing.js"), show: "Grants" },
  { path: "/console/grants/:id", title: "page.grants", parent: "/console/grants", load: () => import("./sharing.js"), show: "Grant" },
  { path: "/console/bundles", title: "page.bundles", parent: "/console/catalogue", load: () => import("./sharing.js"), show: "Bundles" },
  { path: "/console/subscribers", title: "page.subscribers", group: "sharing", key: "s", load: () => import("./sharing.js"), show: "Subscribers" },
  { path: "/console/quality", title: "page.quality", group: "sharing", key: "i", right: "read_ledger", load: () => import("./quality.js"), show: "Quality" },
  { path: "/console/assessment", title: "page.assessment", group: "sharing", key: "j", right: "read_ledger", load: () => import("./assessment.js"), show: "Assessment" },
  { path: "/console/nodes", unscoped: true, title: "page.nodes", group: "operations", key: "n", right: "read_registry", load: () => import("./nodes.js"), show: "Nodes" },
  { path: "/console/nodes/:member", title: "page.nodes", parent: "/console/nodes", load: () => import("./nodes.js"), show: "Node" },
  { path: "/console/moves", title: "page.moves", group: "operations", key: "m", at: "centre", right: "read_registry", load: () => import("./operations.js"), show: "Moves" },
  { path: "/console/tasks", title: "page.tasks", group: "operations", key: "t", right: "read_registry", load: () => import("./operations.js"), show: "Tasks" },
  { path: "/console/modes", title: "page.modes", group: "operations", key: "e", right: "read_registry", load: () => import("./modes.js"), show: "Modes" },
  { path: "/console/channels", title: "page.channels", group: "operations", key: "h", right: "read_alarms", load: () => import("./channels.js"), show: "Channels" },
  { path: "/console/sites", title: "page.sites", group: "operations", key: "2", right: "read_registry", load: () => import("./sites.js"), show: "Sites" },
  { path: "/console/people", title: "page.people", group: "administration", key: "u", right: "change_people change_auditors", load: () => import("./administration.js"), show: "People" },
  { path: "/console/tokens", title: "page.tokens", group: "administration", key: "k", right: "change_tokens change_auditors", load: () => import("./administration.js"), show: "Tokens" },
  { path: "/console/audit", title: "page.audit", group: "administration", key: "a", right: "read_audit", load: () => import("./administration.js"), show: "Audit" },
  { path: "/console/settings", title: "page.settings", group: "administration", key: "0", right: "read_audit change_nodes", load: () => import("./settings.js"), show: "Settings" },
  { path: "/console/system", title: "page.system", group: "administration", key: "y", load: () => import("./system.js"), show: "System" },
];
export function pageOf(path) {
  const parts = path.replace(/\/+$/, "").split("/");
  for (const page of PAGES) {
    const pattern = page.path.replace(/\/+$/, "").split("/");
    if (pattern.length !== parts.length || !pattern.every((part, index) => part.startsWith(":") || part === parts[index])) continue;
    return { page, parameters: Object.fromEntries(pattern.flatMap((part, index) => (part.startsWith(":") ? [[part.slice(1), decodeURIComponent(parts[index])]] : []))) };
  }
  return { page: null, parameters: {} };
}
