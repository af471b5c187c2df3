// How scores change when a group of features is set to its default.

let explained = null;

const explain = (place = null) => whileBusy(byId("explain"), async () => {
  const text = byId("request").value;
  const by = hasGroups ? byId("by").value : "groups";
  const { isOk, body } = await post(`v1/explain?by=${by}`);
  byId("explanation").hidden = !isOk;
  if (!isOk) {
    showProblem(body);
    return;
  }
  showResults(body, text);
  byId("outcome").textContent = "Explained.";
  explained = body;
  const nameOf = namesOf(text);
  const options = body.order.map((one, at) =>
    [String(one), `${at + 1}: place ${one}${nameOf(one) === null ? "" : `, ${nameOf(one)}`}`]);
  fill("which", [["all", "all: mean size of the changes"], ...options],
    String(place ?? body.order[0]));
  fill("score", [["", "blended"], ...Object.keys(body.scores).map((task) => [task, task])],
    byId("score").value);
  byId("by-field").hidden = !hasGroups;
  showChanges();
  if (place !== null) byId("explanation").scrollIntoView({ block: "nearest" });
});

function fill(id, options, chosen) {
  byId(id).replaceChildren(...options.map(([value, text]) => make("option", { value }, text)));
  if (options.some(([value]) => value === chosen)) byId(id).value = chosen;
}

function showChanges() {
  const which = byId("which").value, task = byId("score").value;
  const valueOf = (change) => {
    const column = task ? change.scores[task] : change.blended;
    if (which !== "all") return column[Number(which)];
    const finite = column.filter((one) => one !== null);
    return finite.length
      ? finite.reduce((sum, one) => sum + Math.abs(one), 0) / finite.length : null;
  };
  const found = explained.changes.map((change) => ({ change, value: valueOf(change) }));
  found.sort((one, other) => Math.abs(other.value ?? 0) - Math.abs(one.value ?? 0));
  const most = Math.max(1e-12, ...found.map(({ value }) => Math.abs(value ?? 0)));
  byId("changes").tBodies[0].replaceChildren(...found.map(({ change, value }) => {
    const bar = make("span", { class: value < 0 ? "below" : null });
    const width = 50 * Math.abs(value ?? 0) / most;
    bar.style.setProperty("--width", `${width}%`);
    bar.style.setProperty("--left", `${value < 0 ? 50 - width : 50}%`);
    const members = String(change.features) === change.name ? "" : change.features.join(", ");
    const also = change.also.length ? `and with it ${change.also.join(", ")}` : "";
    const about = [members, also].filter(Boolean).join("; ");
    return make("tr", {},
      make("td", {}, make("b", {}, change.name), about ? ` (${about})` : ""),
      make("td", {}, make("span", { class: "change", "aria-hidden": "true" }, bar)),
      make("td", { class: "number" }, which === "all" ? shown(value) : signed(value)));
  }));
  const missing = Object.entries(explained.without_default).map(([name, at]) => `${name} (${at})`);
  byId("unexplained").textContent = [
    missing.length ? `No default, hence not explained: ${missing.join(", ")}.` : "",
    explained.left_out.length ? `Too many groups; left out: ${explained.left_out.join(", ")}.` : "",
  ].filter(Boolean).join(" ");
  for (const row of document.querySelectorAll(".ranked tbody tr")) {
    row.setAttribute("aria-current", String(row.dataset.place === which));
  }
}

for (const id of ["which", "score"]) byId(id).addEventListener("change", showChanges);
byId("by").addEventListener("change", () => {
  const which = byId("which").value;
  explain(which === "all" ? null : Number(which));
});
byId("explain").addEventListener("click", () => explain());

loadExamples();
poll();
