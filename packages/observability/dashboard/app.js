/**
 * The live page. It reads one stream of server-sent events and keeps three views of it up to date: a table, a tree, a
 * list of events.
 *
 * Names, errors and everything else that the application chose reach the document as text nodes only: there is no
 * markup in this file, and the page's policy (Trusted Types) would refuse it.
 */

const api = "/orchestra/api/v1"
const maxRows = 500
const maxEvents = 50

const $ = (id) => document.getElementById(id)

/** An element with its attributes and children; strings become text nodes. */
const el = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value)
  element.append(...children)
  return element
}

const setText = (element, text) => {
  if (element.textContent !== text) element.textContent = text
}

// ---------------------------------------------------------------------------------------------------------------------
// Words

/** Each state by a sign and a tone as well as its word: colour is never alone. */
const states = {
  pending: ["○", "quiet"],
  starting: ["◐", "busy"],
  running: ["●", "ok"],
  backoff: ["↻", "warn"],
  stopping: ["■", "busy"],
  succeeded: ["✓", "quiet"],
  failed: ["✕", "bad"],
  defect: ["✕", "bad"],
  interrupted: ["□", "quiet"],
  timed_out: ["✕", "bad"],
  abandoned: ["▲", "bad"]
}

const healths = { ok: ["✓", "ok"], degraded: ["!", "warn"], failed: ["✕", "bad"], stuck: ["▲", "bad"] }

const duration = (ms) => {
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`
  const s = Math.floor(ms / 1000)
  if (s < 60) return `${s < 10 ? Number((ms / 1000).toFixed(1)) : s} s`
  const [large, small, of, size] = s < 3600 ? ["min", "s", s, 60] : s < 86400 ? ["h", "min", s / 60, 60] : ["d", "h", s / 3600, 24]
  const rest = Math.floor(of % size)
  return rest === 0 ? `${Math.floor(of / size)} ${large}` : `${Math.floor(of / size)} ${large} ${rest} ${small}`
}

/** How long ago, in whole seconds: it is written anew every second. */
const age = (at) => {
  const ms = Math.max(0, now() - at)
  return ms < 10_000 ? `${Math.floor(ms / 1000)} s` : duration(ms)
}

const clock = (at) => new Date(at).toLocaleTimeString(undefined, { hour12: false })

const plural = (count, word) => `${count.toLocaleString()} ${word}${count === 1 ? "" : "s"}`

const error = ({ errorType, message }) => [errorType, message].filter((part) => part).join(" ")

const exitText = (exit) => error(exit) === "" ? exit.reason : `${exit.reason}: ${error(exit)}`

const sentences = {
  Forked: () => "was forked",
  Ready: (e) => `run ${e.incarnation} is ready`,
  Exited: (e) => `run ${e.incarnation} ended after ${duration(e.exit.ranMillis)}: ${exitText(e.exit)}`,
  BackoffStarted: (e) => `waits ${duration(e.delayMillis)} before its next run`,
  StopRequested: () => "was asked to stop",
  Stopped: (e) => `has ended: ${e.state}`,
  Stuck: (e) => `has ignored its interruption for ${duration(e.waitedMillis)}`,
  Abandoned: (e) => `ignored its interruption for ${duration(e.waitedMillis)} and is no longer waited for`,
  EndedLate: (e) => `ended after all, ${duration(e.waitedMillis)} late`,
  Decided: (e) => decisions[e.decision]?.(e) ?? `decided: ${e.decision}`,
  Restarted: (e) => `starts run ${e.incarnation} (${e.reason})`,
  Dropped: (e) => `${plural(e.dropped, "event")} came faster than this page could read, and are not shown`,
  Acted: (e) => `${e.result} by ${e.by ?? "somebody"}: ${e.action} (${e.reason})${e.detail === null ? "" : `: ${e.detail}`}`,
  GaveUp: (e) => `gave up after ${plural(e.attempts, "restart")}: ${e.child}`,
  SagaStarted: () => "begins",
  SagaStepStarted: (e) => `${ways[e.direction]} ${e.step}${e.attempt === 1 ? "" : `, attempt ${e.attempt}`}`,
  SagaStepEnded: (e) =>
    `${ways[e.direction]} ${e.step}: ${e.outcome} after ${duration(e.durationMillis)}${
      e.errorType === null ? "" : ` (${e.errorType})`
    }`,
  SagaEnded: (e) =>
    `is ${e.outcome} after ${duration(e.durationMillis)}${
      e.stuck.length === 0 ? "" : `: could not undo ${e.stuck.join(", ")}`
    }`
}

const ways = { forward: "does", compensate: "undoes" }

const decisions = {
  restart: (e) => `restarts ${e.child} (${e.reason})`,
  restart_group: (e) => `restarts ${e.child} and what stands on it (${e.reason})`,
  stop: (e) => `leaves ${e.child} stopped (${e.reason})`,
  ignore: (e) => `needs no ${e.child}`,
  escalate: (e) => `gives up over ${e.child} and leaves it to its parent`,
  give_up: (e) => `gives up over ${e.child}`
}

const tones = { Exited: (e) => e.exit.reason === "failure" || e.exit.reason === "defect" ? "bad" : "quiet" }
for (const tag of ["Restarted", "BackoffStarted", "Decided", "Dropped", "Acted"]) tones[tag] = () => "warn"
for (const tag of ["Stuck", "Abandoned", "GaveUp"]) tones[tag] = () => "bad"
tones.Ready = () => "ok"
tones.SagaStepEnded = (e) => e.outcome === "success" ? "quiet" : "warn"
tones.SagaEnded = (e) => ({ completed: "ok", compensated: "warn" })[e.outcome] ?? "bad"

// ---------------------------------------------------------------------------------------------------------------------
// What is known

const nodes = new Map()
const changedIds = new Set()
let events = []
let summary = undefined
let hello = undefined
/** How far the clock of the server is ahead of this one, so that ages are right on a machine whose clock is not. */
let skew = 0
let view = readView()

function now() {
  return Date.now() + skew
}

// ---------------------------------------------------------------------------------------------------------------------
// The table

const columns = [
  { key: "name", title: "Name", value: (row) => row.name },
  { key: "state", title: "State", value: (row) => row.state },
  { key: "health", title: "Health", value: (row) => row.health },
  { key: "incarnation", title: "Run", value: (row) => row.incarnation, numeric: true },
  { key: "restarts", title: "Restarts", value: (row) => row.restarts, numeric: true },
  { key: "since", title: "Since", value: (row) => -row.since, numeric: true },
  { key: "exit", title: "Last exit", value: (row) => -(row.lastExit?.at ?? 0) }
]

/** Worst first, then by path: the order does not change while nothing does. */
const badness = (row) => row.problem === null ? 3 : { stuck: 0, failed: 1 }[row.health] ?? 2

const compare = (a, b) => a < b ? -1 : a > b ? 1 : 0

const byPath = (a, b) => compare(a.path, b.path) || compare(a.id, b.id)

const ordered = (rows) => {
  const column = columns.find(({ key }) => key === view.sort)
  const direction = view.dir === "desc" ? -1 : 1
  return rows.sort((a, b) =>
    (column === undefined ? badness(a) - badness(b) : direction * compare(column.value(a), column.value(b))) ||
    byPath(a, b)
  )
}

const matches = (row, text) =>
  [row.name, row.path, row.id, row.state, row.health, row.lastExit?.errorType, row.lastExit?.message].some((field) =>
    field?.toLowerCase().includes(text)
  )

const mark = ([sign, tone], word) => {
  const element = el(
    "span",
    { class: `mark ${tone} ${word}` },
    el("span", { class: "sign", "aria-hidden": "true" }, sign),
    el("span", { class: "word" }, word)
  )
  element.dataset.word = word
  return element
}

const setMark = (cell, style, word) => {
  if (cell.firstChild?.dataset?.word !== word) cell.replaceChildren(mark(style, word))
}

const makeRow = () => {
  const name = el("strong")
  const path = el("span", { class: "path" })
  const cells = columns.map(({ key, numeric, title }) =>
    el("td", { "data-label": title, class: numeric ? `${key} numeric` : key }))
  cells[0].append(name, path)
  const since = el("span")
  const next = el("span", { class: "next" })
  cells[5].append(since, next)
  return { element: el("tr", {}, ...cells), cells, name, next, path, since }
}

const updateRow = (made, row) => {
  const [, state, health, run, restarts, , exit] = made.cells
  setText(made.name, row.name)
  setText(made.path, row.path)
  setMark(state, states[row.state] ?? ["?", "quiet"], row.state)
  setMark(health, healths[row.health] ?? ["?", "quiet"], row.health)
  setText(run, String(row.incarnation))
  setText(restarts, String(row.restarts))
  setText(exit, row.lastExit === null ? "–" : exitText(row.lastExit))
  exit.classList.toggle("quiet", row.lastExit === null)
}

/** What changes as time passes. */
const updateRowAge = (made, row) => {
  const [, , , , , since, exit] = made.cells
  setText(made.since, age(row.since))
  setText(made.next, row.nextStartAt === null ? "" : `next run in ${Math.max(0, Math.ceil((row.nextStartAt - now()) / 1000))} s`)
  since.title = new Date(row.since).toLocaleString()
  if (row.lastExit !== null) exit.title = `run ${row.lastExit.incarnation} ended ${age(row.lastExit.at)} ago`
}

const tableRows = new Map()

const renderTable = () => {
  const text = view.q.toLowerCase()
  const routines = [...nodes.values()].filter((row) => row.kind === "routine")
  const all = ordered(text === "" ? routines : routines.filter((row) => matches(row, text)))
  const shown = all.slice(0, maxRows)
  keyed($("rows"), tableRows, shown, makeRow, (made, row) => {
    updateRow(made, row)
    updateRowAge(made, row)
    if (changedIds.has(row.id)) flash(made.element)
  })
  const total = summary === undefined ? 0 : summary.pending + summary.starting + summary.running + summary.backoff +
    summary.stopping
  const hidden = Math.max(0, (text === "" ? total : all.length) - shown.length)
  setText($("routine-count"), hidden > 0 ? `${shown.length.toLocaleString()} of ${total.toLocaleString()}` : `${all.length}`)
  $("no-rows").hidden = shown.length > 0
  setText($("no-rows"), text === "" ? "No routine is running." : "No routine matches.")
}

/** Makes the children of `parent` those of `items`, in order, keeping the elements (and the focus) of those that stay. */
const keyed = (parent, made, items, make, update) => {
  const ids = new Set(items.map((item) => item.id))
  for (const [id, { element }] of made) {
    if (ids.has(id)) continue
    element.remove()
    made.delete(id)
  }
  let before = parent.firstElementChild
  for (const item of items) {
    let entry = made.get(item.id)
    if (entry === undefined) made.set(item.id, entry = make(item))
    update(entry, item)
    if (entry.element === before) before = before.nextElementSibling
    else parent.insertBefore(entry.element, before)
  }
}

const flash = (element) => {
  element.classList.remove("changed")
  void element.offsetWidth
  element.classList.add("changed")
}

const headers = columns.map(({ key, title, numeric }) => {
  const button = el("button", { type: "button" }, title)
  button.addEventListener("click", () => {
    const next = view.sort !== key ? ["asc", key] : view.dir === "asc" ? ["desc", key] : ["asc", ""]
    view = { ...view, dir: next[0], sort: next[1] }
    writeView()
    render()
  })
  return { key, element: el("th", { scope: "col", class: numeric ? `${key} numeric` : key }, button) }
})
$("columns").append(...headers.map(({ element }) => element))

const renderHeaders = () => {
  for (const { element, key } of headers) {
    const sorted = view.sort === key
    if (sorted) element.setAttribute("aria-sort", view.dir === "asc" ? "ascending" : "descending")
    else element.removeAttribute("aria-sort")
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// The tree

const treeItems = new Map()

/** A node with children can be folded; what the reader folded stays so. */
const makeItem = (hasChildren) => {
  const sign = el("span")
  const name = el("strong")
  const info = el("span", { class: "info" })
  const meter = el("meter", { min: "0", max: "1", hidden: "" })
  const line = el(hasChildren ? "summary" : "div", { class: "line" }, sign, el("span", {}, name, meter, info))
  const list = el("ul")
  const element = hasChildren ? el("li", {}, el("details", { open: "" }, line, list)) : el("li", {}, line)
  return { element, hasChildren, info, line, list, meter, name, sign }
}

const runText = (row) => `run ${row.incarnation}${row.restarts === 0 ? "" : `, ${plural(row.restarts, "restart")}`}`

const itemText = (row, below, as) => {
  switch (row.kind) {
    case "supervisor": {
      const { max, used, windowMs } = row.budget
      const own = `${row.strategy}, ${used} of ${plural(max, "restart")} in ${duration(windowMs)}`
      return as === undefined ? own : `${runText(as)}, ${own}`
    }
    case "routine":
      return runText(row)
    case "group":
      return `${row.active} of ${row.concurrency ?? "∞"} at work`
    case "saga": {
      const steps = row.steps.map(({ name, state }) => `${name} ${state.replace("_", " ")}`).join(", ")
      return `saga, ${row.direction === "forward" ? "" : "goes back, "}${steps || "no step yet"}`
    }
    case "mailbox":
      return `mailbox of ${plural(row.stats.capacity, "message")}`
    case "topic":
      return `${row.delivery} topic, ${plural(row.subscribers, "subscriber")}`
    default:
      return plural(below, "routine")
  }
}

const renderTree = () => {
  const children = new Map()
  for (const row of nodes.values()) {
    const parent = nodes.has(row.parent) ? row.parent : null
    if (!children.has(parent)) children.set(parent, [])
    children.get(parent).push(row)
  }
  // In the order in which they came into the tree, which is the order in which they start.
  for (const rows of children.values()) rows.sort((a, b) => number(a.id) - number(b.id))
  const below = (row) =>
    (children.get(row.id) ?? []).reduce((sum, child) => sum + below(child) + (child.kind === "routine" ? 1 : 0), 0)
  const fill = (list, rows) => {
    const shown = rows.slice(0, maxRows).map((row) => {
      // A supervisor that is a child runs in a routine of the same path: one line for both.
      const inner = children.get(row.id)
      return inner?.length === 1 && inner[0].path === row.path ? { row: inner[0], as: row } : { row }
    })
    for (const { as, row } of shown) {
      const hasChildren = children.has(row.id)
      let item = treeItems.get(row.id)
      if (item !== undefined && item.hasChildren !== hasChildren) {
        item.element.remove()
        treeItems.delete(row.id)
        item = undefined
      }
      if (item === undefined) treeItems.set(row.id, item = makeItem(hasChildren))
      setMark(item.sign, states[row.state] ?? ["?", "quiet"], row.state)
      setText(item.name, row.kind === "orchestrator" ? row.path : row.name)
      setText(item.info, itemText(row, below(row), as))
      item.line.title = row.path
      if (row.kind === "supervisor") setBudget(item.meter, row.budget)
      if (changedIds.has(row.id)) flash(item.line)
      if (hasChildren) fill(item.list, children.get(row.id))
    }
    let before = list.firstElementChild
    for (const { row } of shown) {
      const { element } = treeItems.get(row.id)
      if (element === before) before = before.nextElementSibling
      else list.insertBefore(element, before)
    }
    while (before !== null) {
      const next = before.nextElementSibling
      before.remove()
      before = next
    }
  }
  for (const id of treeItems.keys()) if (!nodes.has(id)) treeItems.delete(id)
  fill($("tree"), children.get(null) ?? [])
}

const number = (id) => Number(id.slice(id.indexOf("-") + 1))

const setBudget = (meter, { max, used }) => {
  const full = max === 0 ? Math.min(used, 1) : used / max
  meter.hidden = used === 0
  meter.value = full
  meter.high = 0.8
  meter.optimum = 0
  meter.title = `${Math.round(full * 100)} % of the restarts allowed`
  meter.textContent = meter.title
}

// ---------------------------------------------------------------------------------------------------------------------
// The rest

const problemItems = new Map()

const makeProblem = () => {
  const sign = el("span")
  const path = el("strong")
  const text = el("span", { class: "text" })
  const since = el("span", { class: "since" })
  return { element: el("li", {}, sign, path, text, since), path, sign, since, text }
}

const renderProblems = () => {
  const bad = [...nodes.values()].filter((row) => row.problem !== null)
  bad.sort((a, b) => badness(a) - badness(b) || byPath(a, b))
  keyed($("problem-list"), problemItems, bad.slice(0, 20), makeProblem, (made, row) => {
    setMark(made.sign, row.kind === "supervisor" ? ["!", "warn"] : states[row.state] ?? ["?", "quiet"], row.state)
    setText(made.path, row.path)
    setText(made.text, row.problem)
    setText(made.since, age(row.since))
  })
  const worst = bad[0] === undefined ? "ok" : badness(bad[0]) < 2 ? "bad" : "warn"
  $("problems").className = worst
  $("no-problems").hidden = bad.length > 0 || summary === undefined
  setText($("problem-count"), bad.length === 0 ? "" : String(bad.length))
  document.title = `${bad.length === 0 ? "" : `(${bad.length}) `}${hello?.name ?? "effect-orchestra"} · effect-orchestra`
}

const totals = ["running", "starting", "backoff", "stopping", "pending"]
const totalCells = new Map([...totals, "starts", "restarts"].map((key) => {
  const value = el("dd", {}, "–")
  const style = states[key]
  const label = el("dt", {}, style === undefined ? key : mark(style, key))
  $("totals").append(el("div", {}, label, value))
  return [key, value]
}))

const renderTotals = () => {
  for (const [key, cell] of totalCells) {
    setText(cell, summary === undefined ? "–" : summary[key].toLocaleString())
    cell.parentElement.classList.toggle("zero", summary === undefined || summary[key] === 0)
  }
  const status = summary?.status ?? "open"
  $("status").hidden = status === "open"
  setText($("status"), status === "closing" ? "shutting down" : "shut down")
  if (hello === undefined) return
  setText($("name"), hello.name)
}

const renderEvents = () => {
  $("no-events").hidden = events.length > 0
  const list = $("events")
  const newest = list.firstElementChild?.dataset.seq
  for (const event of events) {
    if (newest !== undefined && event.seq <= Number(newest)) continue
    const tone = tones[event._tag]?.(event) ?? "quiet"
    const item = el(
      "li",
      { class: tone },
      el("time", { datetime: new Date(event.at).toISOString() }, clock(event.at)),
      el("span", {}, el("strong", {}, event.path), " ", sentences[event._tag]?.(event) ?? event._tag)
    )
    item.dataset.seq = event.seq
    list.prepend(item)
  }
  while (list.childElementCount > maxEvents) list.lastElementChild.remove()
}

let scheduled = false

const render = () => {
  if (scheduled) return
  scheduled = true
  requestAnimationFrame(() => {
    scheduled = false
    renderHeaders()
    renderTotals()
    renderProblems()
    renderTable()
    renderTree()
    renderEvents()
    renderLink()
    changedIds.clear()
  })
}

setInterval(() => {
  if (document.hidden) return
  for (const [id, made] of tableRows) if (nodes.has(id)) updateRowAge(made, nodes.get(id))
  for (const [id, made] of problemItems) if (nodes.has(id)) setText(made.since, age(nodes.get(id).since))
  if (hello !== undefined) setText($("process"), `up ${age(hello.since)} · pid ${hello.pid}`)
  renderLink()
}, 1000)

// ---------------------------------------------------------------------------------------------------------------------
// The view that the address holds, so that a link shows what its sender saw

function readView() {
  const query = new URLSearchParams(location.search)
  return { q: query.get("q") ?? "", sort: query.get("sort") ?? "", dir: query.get("dir") === "desc" ? "desc" : "asc" }
}

function writeView() {
  const query = new URLSearchParams()
  for (const [key, value] of Object.entries(view)) if (value !== "" && value !== "asc") query.set(key, value)
  history.replaceState(null, "", `${location.pathname}${query.size === 0 ? "" : `?${query}`}`)
}

const filter = $("filter")
filter.value = view.q
filter.addEventListener("input", () => {
  view = { ...view, q: filter.value }
  writeView()
  render()
})

document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || event.target instanceof HTMLInputElement) return
  event.preventDefault()
  filter.focus()
})

// ---------------------------------------------------------------------------------------------------------------------
// The stream

/**
 * The token of a server that asks for one comes in the fragment, which no log and no Referer carries, and is taken out of
 * the address at once. It is exchanged for a cookie that no script can read. The token itself stays in this variable
 * alone: a server that starts anew knows the cookie no more, and is shown the token again.
 */
let token = undefined
/** Who this page is for the server, and what it may do there. */
let session = undefined

const takeToken = () => {
  const given = new URLSearchParams(location.hash.slice(1)).get("token")
  if (given === null) return false
  token = given
  history.replaceState(null, "", location.pathname + location.search)
  return true
}

const renderSession = () => {
  $("session").hidden = session?.session !== true
  if (session === undefined) return
  setText($("session-text"), `${session.label} · ${session.may.includes("control") ? "may act" : "read-only"}`)
}

/** Asks for a token, and tries nothing more by itself. */
const lock = (text) => {
  clearTimeout(retryTimer)
  controller?.abort()
  token = session = undefined
  connection = { state: "locked" }
  setText($("login-text"), text)
  renderSession()
  renderLink()
}

const sessionRequest = (method, body) =>
  fetch(`${api}/session`, {
    method,
    cache: "no-store",
    ...method === "GET" ? {} : { headers: { "content-type": "application/json" } },
    ...body === undefined ? {} : { body: JSON.stringify(body) }
  })

/** Whether the token was taken; else the page is locked, and says why. */
const exchange = async () => {
  const response = await sessionRequest("POST", { token })
  if (response.ok) session = await response.json()
  else lock(response.status === 401 ? "That token is wrong." : (await refusal(response)).why)
  return response.ok
}

const whoAmI = async () => {
  const response = await sessionRequest("GET")
  if (response.ok) session = await response.json()
  renderSession()
}

$("login").addEventListener("submit", (event) => {
  event.preventDefault()
  token = $("token").value.trim()
  $("token").value = ""
  session = undefined
  connect()
})

$("log-out").addEventListener("click", async () => {
  try {
    await sessionRequest("DELETE")
    nodes.clear()
    summary = undefined
    events = []
    $("events").replaceChildren()
    lock("You have logged out.")
    render()
  } catch (failure) {
    console.error(failure)
  }
})

addEventListener("hashchange", () => {
  if (!takeToken()) return
  session = undefined
  connect()
})

/** `down` says why there is no stream and since when what is shown is old. */
let connection = { state: "connecting" }
let controller = undefined
let retryTimer = undefined
let attempts = 0
let lastSeen = 0
let lastId = undefined

const renderLink = () => {
  const { state } = connection
  const link = $("link")
  setText(link, state === "down" ? "stale" : state)
  link.className = `link ${state}`
  $("stale").hidden = state !== "down"
  if ($("login").hidden === (state === "locked")) {
    $("login").hidden = state !== "locked"
    if (state === "locked") $("token").focus()
  }
  $("main").classList.toggle("old", state === "down" || state === "locked")
  if (state !== "down") return
  const wait = Math.max(0, Math.ceil((connection.retryAt - Date.now()) / 1000))
  const next = wait === 0 ? "trying again" : `next attempt in ${wait} s`
  const seen = lastSeen === 0 ? "Nothing to show yet" : `Stale since ${duration(Math.floor((Date.now() - lastSeen) / 1000) * 1000)}`
  setText($("stale-text"), `${seen}: ${connection.why}; ${next}.`)
}

/** A snapshot comes in parts, and is shown when it is complete. */
let incoming = []

const handlers = {
  hello: (data) => {
    if (hello?.instance !== data.instance) {
      events = []
      $("events").replaceChildren()
    }
    hello = data
  },
  // Nothing is replayed: a snapshot follows.
  reset: () => {},
  snapshot: (data) => {
    incoming = data.part === 1 ? data.rows : [...incoming, ...data.rows]
    if (!data.last) return
    nodes.clear()
    take({ ...data, rows: incoming })
  },
  delta: (data) => {
    for (const id of data.removed) nodes.delete(id)
    for (const { id } of data.rows) changedIds.add(id)
    take(data)
  },
  event: (data) => {
    events.push(data)
    events = events.slice(-maxEvents)
  },
  dropped: ({ dropped }) => {
    events.push({ _tag: "Dropped", seq: (events.at(-1)?.seq ?? 0) + 0.5, at: now(), path: "", dropped })
  }
}

const take = ({ at, rows, summary: sums }) => {
  skew = at - Date.now()
  summary = sums
  for (const row of rows) nodes.set(row.id, row)
}

const receive = (frame) => {
  lastSeen = Date.now()
  let name = "message"
  let data = ""
  for (const line of frame.split("\n")) {
    if (line.startsWith("id: ")) lastId = line.slice(4)
    else if (line.startsWith("event: ")) name = line.slice(7)
    else if (line.startsWith("data: ")) data += line.slice(6)
  }
  if (data === "" || !Object.hasOwn(handlers, name)) return
  handlers[name](JSON.parse(data))
  if (connection.state !== "live") {
    connection = { state: "live" }
    attempts = 0
  }
  render()
}

const connect = async () => {
  clearTimeout(retryTimer)
  controller?.abort()
  if (document.hidden) return
  if (connection.state === "locked") connection = { state: "connecting" }
  const own = controller = new AbortController()
  try {
    if (token !== undefined && session === undefined && !(await exchange())) return
    const response = await fetch(`${api}/stream`, {
      cache: "no-store",
      signal: own.signal,
      headers: { accept: "text/event-stream", ...lastId === undefined ? {} : { "last-event-id": lastId } }
    })
    if (response.status === 401) {
      session = undefined
      if (token === undefined) return lock("This server asks for a token: open the link it printed, or enter the token.")
      if (!(await exchange())) return
      return retry({ why: "the session was over" })
    }
    if (!response.ok) return retry(await refusal(response))
    await whoAmI()
    let buffer = ""
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
    for (;;) {
      const { done, value } = await reader.read()
      if (done) break
      lastSeen = Date.now()
      const frames = (buffer + value).split("\n\n")
      buffer = frames.pop()
      frames.forEach(receive)
    }
    if (!own.signal.aborted) retry({ why: "the server closed the stream" })
  } catch (failure) {
    if (own.signal.aborted) return
    console.error(failure)
    retry({ why: "the server cannot be reached" })
  }
}

const refusal = async (response) => {
  const detail = await response.json().then((problem) => problem.detail, () => response.statusText)
  return { why: `the server answers ${response.status} (${detail})`, seconds: Number(response.headers.get("retry-after")) }
}

/** Later each time, and never when all other pages do: a server that comes back is not met by all of them at once. */
const retry = ({ seconds, why }) => {
  const wait = Math.max((seconds || 0) * 1000, Math.min(10_000, 500 * 2 ** attempts++)) * (0.5 + Math.random())
  connection = { state: "down", why, retryAt: Date.now() + wait }
  retryTimer = setTimeout(connect, wait)
  renderLink()
}

$("retry").addEventListener("click", connect)

// A page that nobody looks at holds no connection: a browser has six for each host.
document.addEventListener("visibilitychange", () => {
  if (connection.state === "locked") return
  if (!document.hidden) connect()
  else {
    clearTimeout(retryTimer)
    controller?.abort()
    connection = { state: "connecting" }
  }
})

// The server says something every 15 seconds. A connection that is silent for longer is gone, whoever has not noticed.
setInterval(() => {
  if (connection.state !== "live" || Date.now() - lastSeen < 35_000) return
  controller?.abort()
  retry({ why: "the server has fallen silent" })
}, 5000)

takeToken()
connect()
