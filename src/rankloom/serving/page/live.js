// Charts of differences between snapshots of the server's counts.

const POLL_MS = 1000, WINDOW_S = 5, TABLE_S = 60;
const CHARTS = [
  { id: "requests", title: "Requests by status", unit: "/s" },
  { id: "latency", title: "Latency", unit: "ms" },
  { id: "stages", title: "Stages, p95", unit: "ms" },
  { id: "share", title: "User states from the cache", unit: "%", top: 100 },
  { id: "bytes", title: "Cache", unit: "B" },
  { id: "queue", title: "Waiting requests" },
  { id: "batches", title: "A batch, mean" },
  { id: "rejections", title: "Refused and late", unit: "/s" },
  { id: "memory", title: "Memory of processes", unit: "B" },
].map((about) => ({ id: about.id, chart: new Chart(byId("charts"), about) }));

let snapshots = [], frames = [], isPaused = false, shownDigest = null;

// The value below which a share of the counts lies, by the buckets' bounds.
function quantile(bounds, buckets, share) {
  const total = buckets.reduce((sum, count) => sum + count, 0);
  if (!total) return null;
  let before = 0;
  for (let at = 0; at < buckets.length; at++) {
    if (buckets[at] && before + buckets[at] >= share * total) {
      const low = at ? bounds[at - 1] : 0;
      // Above the last bound nothing is known but that.
      const high = at < bounds.length ? bounds[at] : low;
      return low + (high - low) * (share * total - before) / buckets[at];
    }
    before += buckets[at];
  }
  return bounds[bounds.length - 1];
}

const less = (after, before) => after.map((count, at) => count - (before?.[at] ?? 0));

function rates(after, before, seconds) {
  const names = Object.keys(after).sort();
  return Object.fromEntries(names.map((name) =>
    [name, (after[name] - (before[name] ?? 0)) / seconds]));
}

// What the charts show at one time: chart -> series -> value, or null where nothing happened.
function frameOf(now, then) {
  const seconds = Math.max(0.001, now.time_s - then.time_s);
  const latency = less(now.latency.buckets, then.latency.buckets);
  const at = (share) => quantile(now.bounds_ms, latency, share);
  const stages = Object.entries(now.stages).filter(([name]) => name !== "total");
  const lookups = ["hit", "wait", "miss"].map((name) => now.cache[name] - then.cache[name]);
  const asked = lookups.reduce((sum, count) => sum + count, 0);
  const batches = now.batches.count - then.batches.count;
  const mean = (name) => (batches ? (now.batches[name] - then.batches[name]) / batches : null);
  const refused = rates(now.rejections, then.rejections, seconds);
  if (now.deadline_misses) {
    refused["answered late"] = (now.deadline_misses - then.deadline_misses) / seconds;
  }
  return {
    requests: rates(now.requests, then.requests, seconds),
    latency: { p50: at(0.5), p95: at(0.95), p99: at(0.99) },
    stages: Object.fromEntries(stages.map(([name, one]) =>
      [name, quantile(now.bounds_ms, less(one.buckets, then.stages[name]?.buckets), 0.95)])),
    share: { share: asked ? 100 * (lookups[0] + lookups[1]) / asked : null },
    bytes: { bytes: now.cache.bytes },
    queue: { queue: now.queue, "in flight": now.in_flight },
    batches: { candidates: mean("candidates"), requests: mean("requests") },
    rejections: refused,
    memory: now.memory_bytes,
  };
}

const earlier = (now, seconds) =>
  snapshots.find((one) => one.time_s >= now.time_s - seconds - 0.5) ?? now;

function take(now) {
  const last = snapshots[snapshots.length - 1];
  const total = (one) => one.latency.buckets.reduce((sum, count) => sum + count, 0);
  // The server was started anew, and counts from nothing.
  if (last && total(now) < total(last)) snapshots = frames = [];
  const then = earlier(now, WINDOW_S);
  snapshots = [...snapshots, now].filter((one) => one.time_s > now.time_s - SPAN_S);
  if (then !== now) frames = [...frames, { t: now.time_s, charts: frameOf(now, then) }];
  frames = frames.filter((one) => one.t > now.time_s - SPAN_S);
  for (const { id, chart } of CHARTS) {
    chart.update(frames.map((one) => ({ t: one.t, values: one.charts[id] })));
  }
  showStages(now, earlier(now, TABLE_S));
  showArtifact(now.artifacts);
}

function showStages(now, then) {
  const all = [["whole request", now.latency, then.latency],
    ...Object.entries(now.stages).filter(([name]) => name !== "total")
      .map(([name, one]) => [name, one, then.stages[name]])];
  byId("stages").tBodies[0].replaceChildren(...all.map(([name, after, before]) => {
    const buckets = less(after.buckets, before?.buckets);
    const count = buckets.reduce((sum, one) => sum + one, 0);
    const cells = [0.5, 0.95, 0.99].map((share) =>
      make("td", {}, shown(quantile(now.bounds_ms, buckets, share))));
    return make("tr", {}, make("th", { scope: "row" }, name), ...cells,
      make("td", {}, shown(count)));
  }));
}

function showArtifact(artifacts) {
  const one = artifacts[0];
  const digest = one ? one.digest : null;
  if (digest === shownDigest) return;
  const isFirst = shownDigest === null;
  shownDigest = digest;
  byId("artifact").replaceChildren(...(one
    ? [make("b", {}, one.name), " serves artifact ", make("code", { title: digest }, digest)]
    : ["No artifact is served at the moment."]));
  if (one && !isFirst) loadExamples();
}

function showState(kind, text) {
  byId("state").parentElement.dataset.state = kind;
  if (byId("state").textContent !== text) byId("state").textContent = text;
}

async function poll() {
  if (!isPaused && !document.hidden) {
    const { isOk, status, body } = await call("v1/snapshot");
    if (isOk) take(body);
    showState(isOk ? "live" : "bad", isOk ? "live" : status === 401 ? "needs a token" : "no answer");
  }
  setTimeout(poll, POLL_MS);
}

byId("pause").addEventListener("click", () => {
  isPaused = !isPaused;
  byId("pause").setAttribute("aria-pressed", String(isPaused));
  byId("pause").textContent = isPaused ? "Go on" : "Pause";
  if (isPaused) showState("paused", "paused");
});

byId("login").addEventListener("submit", (event) => {
  event.preventDefault();
  token = byId("token").value.trim();
  byId("token").value = "";
  byId("login").hidden = true;
  loadExamples();
});
