// Map of devices: Leaflet with the operator's own tiles or none; its overlay; no boundaries of our own.
import { html, useEffect, useRef, useState } from "./preact.js";
import { Card, Empty, Link, Problem, call, device, emptyHere, go, number, query, replaceSearch, searchValues, t } from "./lib.js";
import { Table } from "./more.js";

// The gateway divides a view into at most so many cells each way.
const CELLS_OF_A_VIEW = 24, VIEWS_MAX = 6;
const GUANGDONG = [[20.2, 109.6], [25.6, 117.4]];
let leaflet = null;
function loadLeaflet() {
  leaflet ??= new Promise((resolve, reject) => {
    const sheet = document.createElement("link");
    sheet.rel = "stylesheet";
    sheet.href = "/static/console/leaflet.css";
    const script = document.createElement("script");
    script.src = "/static/console/leaflet.js";
    script.onload = () => resolve(globalThis.L);
    script.onerror = reject;
    document.head.append(sheet, script);
  });
  return leaflet;
}
// A layer of tiles of our own origin. Leaflet's own one would set a data: address, which the policy of the page forbids.
function tileLayer(L) {
  const Layer = L.GridLayer.extend({
    createTile(place, done) {
      const tile = document.createElement("img");
      tile.alt = "";
      tile.onload = () => done(null, tile);
      tile.onerror = () => done(new Error("no tile"), tile);
      tile.src = `/tiles/${place.z}/${place.x}/${place.y}`;
      return tile;
    },
  });
  return new Layer({ maxZoom: 18 });
}
export function DeviceMap() {
  const place = useRef(null), map = useRef(null), points = useRef(null);
  const [layers, setLayers] = useState(null);
  const [cells, setCells] = useState(null);
  const [error, setError] = useState(null);
  const domain = searchValues().domain || "";
  useEffect(() => {
    let ended = false, timer = 0, wanted = 0, shownCells = [];
    const read = async () => {
      const bounds = map.current.getBounds(), turn = ++wanted;
      const clamp = (value, most) => Math.max(-most, Math.min(most, value));
      try {
        const found = await call("GET", `/api/v1/map/devices${query({ west: clamp(bounds.getWest(), 180), east: clamp(bounds.getEast(), 180), south: clamp(bounds.getSouth(), 90), north: clamp(bounds.getNorth(), 90), domain })}`);
        if (ended || turn !== wanted) return;
        setCells(found);
        shownCells = found;
        draw(found);
        setError(null);
      } catch (why) { if (!ended) setError(why); }
    };
    const draw = (found) => {
      const L = globalThis.L, style = getComputedStyle(document.documentElement);
      const colour = (name) => style.getPropertyValue(name).trim();
      points.current.clearLayers();
      for (const cell of found) {
        const kind = cell.silent ? "--bad" : cell.disabled === cell.devices ? "--quiet" : "--good";
        const mark = L.circleMarker([cell.lat, cell.lon], { radius: Math.min(6 + 3 * Math.log10(cell.devices), 22), color: colour(kind), fillColor: colour(kind), fillOpacity: 0.55, weight: 1.5 });
        const text = document.createElement("span");
        text.textContent = cell.id || t("devicesHere", number(cell.devices), number(cell.silent));
        mark.bindTooltip(text);
        mark.on("click", () => (cell.id ? go(device(cell.id)) : map.current.setView([cell.lat, cell.lon], Math.min(map.current.getZoom() + 2, 18))));
        points.current.addLayer(mark);
      }
    };
    const begin = async () => {
      const [L, found] = await Promise.all([loadLeaflet(), call("GET", "/api/v1/map")]);
      if (ended) return;
      setLayers(found);
      const values = searchValues();
      map.current = L.map(place.current, { preferCanvas: true, attributionControl: false, zoomControl: true, keyboard: true, zoomAnimation: false });
      if (values.at) { const [lat, lon, zoom] = values.at.split(",").map(Number); map.current.setView([lat || 23, lon || 113, ], zoom || 7); }
      else map.current.fitBounds(GUANGDONG);
      if (found.has_tiles) tileLayer(L).addTo(map.current);
      if (found.has_overlay) call("GET", "/api/v1/map/overlay").then((shape) => !ended && L.geoJSON(shape, { interactive: false, style: { color: "#5b7f88", weight: 1.5, fillOpacity: 0.05 }, pointToLayer: (_, at) => L.circleMarker(at, { radius: 3 }) }).addTo(map.current), setError);
      points.current = L.layerGroup().addTo(map.current);
      map.current.on("moveend", () => {
        if (!map.current) return;  // it is being removed
        const centre = map.current.getCenter();
        history.replaceState(history.state, "", `${location.pathname}${query({ ...searchValues(), at: `${centre.lat.toFixed(4)},${centre.lng.toFixed(4)},${map.current.getZoom()}` })}`);
        clearTimeout(timer);
        timer = setTimeout(read, 150);
      });
      await read();
      // The first view shows what there is; without a place it stays with the province.
      // A cell stands for devices around it: each view is wider by a cell, and what it shows more exactly is fitted again.
      for (let turn = 0, zoom = -1; !values.at && !ended && shownCells.length && zoom !== map.current.getZoom() && turn < VIEWS_MAX; turn += 1) {
        const view = map.current.getBounds(), high = (view.getNorth() - view.getSouth()) / CELLS_OF_A_VIEW, wide = (view.getEast() - view.getWest()) / CELLS_OF_A_VIEW;
        zoom = map.current.getZoom();
        map.current.fitBounds(L.latLngBounds(shownCells.flatMap((cell) => [[cell.lat - high, cell.lon - wide], [cell.lat + high, cell.lon + wide]])).pad(0.05), { maxZoom: 13 });
        await read();
      }
    };
    begin().catch((why) => !ended && setError(why));
    const every = setInterval(() => map.current && !document.hidden && read(), 15_000);
    return () => {
      ended = true;
      clearTimeout(timer);
      clearInterval(every);
      // Shapes go before their canvas: one that is removed after it would ask for it to be drawn again.
      map.current?.eachLayer((layer) => { if (layer._renderer) layer.remove(); });
      map.current?.remove();
      map.current = null;
    };
  }, [domain]);
  const approvals = layers ? [[layers.has_tiles, "tilesWord", layers.tiles_approval], [layers.has_overlay, "overlayWord", layers.overlay_approval]].filter(([there]) => there) : [];
  return html`<div class="headline"><h1>${t("page.map")}</h1></div><${Problem} error=${error} />
    <section class="card"><div class="tools"><label class="filter">${t("column.domain")}<input value=${domain} onChange=${(event) => replaceSearch({ domain: event.target.value.trim() })} /></label><span class="space"></span><span class="quiet">${t("mapHelp")}</span></div>
      <div class="map" ref=${place} role="application" aria-label=${t("page.map")}></div>
      <p class="quiet">${approvals.length ? approvals.map(([, word, approval]) => html`<strong key=${word}>${t("approvalOf", t(word), approval)}</strong> `) : layers && t("noTiles")}</p></section>
    <${Card} title=${t("placesShown")}>${cells?.length ? html`<${Table} rows=${[...cells].sort((left, right) => right.silent - left.silent || right.devices - left.devices).slice(0, 50)} columns=${[{ name: "id", show: (value, row) => (value ? html`<${Link} to=${device(value)}>${value}<//>` : html`<button type="button" onClick=${() => map.current.setView([row.lat, row.lon], Math.min(map.current.getZoom() + 2, 18))}>${t("zoomTo")}</button>`) }, { name: "devices", numeric: true }, { name: "silent", numeric: true, label: t(`state.${"silent"}`) }, { name: "lat", numeric: true, label: "°N" }, { name: "lon", numeric: true, label: "°E" }]} />` : cells && html`<${Empty} text=${emptyHere(t("noPlaces"))} />`}<//>`;
}
