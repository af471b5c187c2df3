// A request to edit, and the ranked candidates that the server answers.

const MAX_ROWS = 50;
let examples = [], itemColumn = null, hasGroups = false;

async function loadExamples() {
  const { isOk, status, body } = await call("v1/examples");
  if (!isOk) {
    if (status !== 401) showProblem(body);
    return;
  }
  const isUntouched = !byId("request").value
    || examples.some((one) => one.request === byId("request").value);
  examples = body.examples;
  itemColumn = body.item;
  hasGroups = Object.keys(body.groups).length > 0;
  byId("example").replaceChildren(...examples.map((one, at) =>
    make("option", { value: String(at) }, `${at + 1}: ${describe(one.request)}`)));
  if (isUntouched && examples.length) byId("request").value = examples[0].request;
}

function describe(text) {
  const { candidates } = parsed(text);
  const count = Math.max(0, ...Object.values(candidates).map((column) => column.length));
  return `${count} candidate${count === 1 ? "" : "s"}`;
}

// Sent as it was written: parsing it would change large ids.
function post(path) {
  const deadline = byId("deadline").value;
  const headers = { "Content-Type": "application/json" };
  if (deadline) headers["X-Deadline-Ms"] = deadline;
  return call(path, { method: "POST", headers, body: byId("request").value });
}

function showProblem(problem) {
  const lines = problem.problems ?? [];
  const isDetailNew = problem.detail && !lines.includes(problem.detail);
  byId("outcome").textContent = "";
  byId("answer").replaceChildren(make("div", { class: "problem", role: "alert" },
    make("h3", {}, problem.title ?? "Not answered"),
    ...(isDetailNew ? [make("p", {}, problem.detail)] : []),
    ...(lines.length ? [make("ul", {}, ...lines.map((line) => make("li", {}, line)))] : []),
    make("p", { class: "hint" }, "Code: ", make("code", {}, problem.code ?? "none"),
      problem.status ? `, status ${problem.status}` : "")));
}

// What people call a candidate: its id if the artifact says which column that is.
function namesOf(text) {
  let candidates = null;
  try {
    candidates = parsed(text).candidates;
  } catch {
    return () => null;
  }
  const values = itemColumn === null || !candidates ? null
    : Array.isArray(candidates) ? candidates.map((one) => one[itemColumn])
      : candidates[itemColumn];
  return (place) => (values ? values[place] ?? null : null);
}

function showResults(body, text) {
  byId("outcome").textContent = "Ranked.";
  const all = body.results ?? [body];
  const only = all.length === 1 && !body.results;
  byId("answer").replaceChildren(...all.flatMap((one, at) => [
    ...(only ? [] : [make("h3", {}, `Request ${at + 1}`)]),
    ...(one.problem ? [make("p", { class: "problem" }, one.problem.detail)]
      : resultParts(one, only ? namesOf(text) : () => null, only)),
  ]));
}

function resultParts(result, nameOf, canExplain) {
  const tasks = Object.keys(result.scores);
  const count = result.blended.length, rows = result.order.slice(0, MAX_ROWS);
  const finite = result.blended.filter((score) => score !== null);
  const low = Math.min(0, ...finite), high = Math.max(...finite, low + 1e-12);
  const hasNames = nameOf(rows[0]) !== null;
  const heads = ["Rank", "Place", ...(hasNames ? [itemColumn] : []), "Blended", ...tasks];
  const lines = rows.map((place, at) => {
    const share = make("span", { class: "share" });
    const part = ((result.blended[place] ?? low) - low) / (high - low);
    share.style.setProperty("--part", `${(100 * part).toFixed(1)}%`);
    const button = make("button", { type: "button", class: "place",
      "aria-label": `Explain the candidate at place ${place}` }, String(place));
    button.addEventListener("click", () => explain(place));
    return make("tr", { "data-place": place },
      make("td", {}, String(at + 1)),
      make("td", {}, canExplain ? button : String(place)),
      ...(hasNames ? [make("td", {}, String(nameOf(place)))] : []),
      make("td", { class: "number" }, shown(result.blended[place]), share),
      ...tasks.map((task) => make("td", { class: "number" }, shown(result.scores[task][place]))));
  });
  const numeric = (name, at) => (at >= heads.length - tasks.length - 1 ? "number" : null);
  const more = result.order.length > rows.length ? `, the best ${rows.length} shown` : "";
  return [
    make("ul", { class: "times", "aria-label": "Milliseconds by stage" },
      ...Object.entries(result.timing_ms).map(([stage, ms]) =>
        make("li", {}, `${stage} `, make("b", {}, shown(ms, "ms"))))),
    make("div", { class: "scroll" }, make("table", { class: "ranked" },
      make("caption", {}, `${count} candidate${count === 1 ? "" : "s"} ranked${more}; by artifact `,
        make("code", { title: result.digest }, result.digest.slice(0, 12))),
      make("thead", {}, make("tr", {}, ...heads.map((name, at) =>
        make("th", { scope: "col", class: numeric(name, at) }, name)))),
      make("tbody", {}, ...lines))),
  ];
}

async function whileBusy(button, work) {
  if (button.disabled) return;
  button.disabled = true;
  try {
    await work();
  } finally {
    button.disabled = false;
  }
}

const rank = () => whileBusy(byId("rank"), async () => {
  const text = byId("request").value;
  const { isOk, body } = await post("v1/rank");
  byId("explanation").hidden = true;
  if (isOk) showResults(body, text);
  else showProblem(body);
});

byId("asking").addEventListener("submit", (event) => {
  event.preventDefault();
  rank();
});
byId("request").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    rank();
  }
});
byId("example").addEventListener("change", (event) => {
  byId("request").value = examples[Number(event.target.value)].request;
});
