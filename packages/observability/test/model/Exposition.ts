/**
 * A strict reader of the two text formats: OpenMetrics 1.0 by its ABNF and its rules, and text 0.0.4 by Prometheus'
 * page on exposition formats, held to the same rules where both have them. Throws at the first fault.
 */
export interface Sample {
  readonly name: string
  readonly labels: ReadonlyMap<string, string>
  readonly value: number
  readonly exemplar?: { readonly labels: ReadonlyMap<string, string>; readonly value: number; readonly at: number }
}

export interface Family {
  readonly name: string
  readonly type: string
  readonly help: string
  readonly unit: string | undefined
  readonly samples: Array<Sample>
}

/** Suffixes of samples by type: text has no `info`, and its counters have their suffix in the name. */
const suffixes = {
  openmetrics: {
    counter: ["_total", "_created"],
    gauge: [""],
    histogram: ["_bucket", "_sum", "_count", "_created"],
    summary: ["", "_sum", "_count", "_created"],
    info: ["_info"]
  },
  text: { counter: [""], gauge: [""], histogram: ["_bucket", "_sum", "_count"], summary: ["", "_sum", "_count"] }
} as const

const metricName = "[a-zA-Z_:][a-zA-Z0-9_:]*"
const sampleLine = new RegExp(`^(?<name>${metricName})(?:\\{(?<rest>.*)|(?<bare> .*))$`, "s")
const metaLine = new RegExp(`^# (?<kind>HELP|TYPE|UNIT) (?<name>${metricName}) (?<value>[^\\n]*)$`, "s")

const fail = (why: string, line: string): never => {
  throw new Error(`${why}: ${JSON.stringify(line)}`)
}

const number = (text: string, line: string): number => {
  if (text === "+Inf" || text === "-Inf") return text === "+Inf" ? Infinity : -Infinity
  if (text === "NaN") return NaN
  if (!/^[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?$/i.test(text)) return fail("not a number", line)
  return Number(text)
}

const unescape = (text: string, quoted: boolean, line: string): string => {
  let out = ""
  for (let index = 0; index < text.length; index++) {
    const char = text[index]
    if (quoted && char === "\"") fail("a bare quote", line)
    if (char !== "\\") {
      out += char
      continue
    }
    const next = text[++index]
    if (next === "n") out += "\n"
    else if (next === "\\" || (quoted && next === "\"")) out += next
    else fail("an unknown escape", line)
  }
  return out
}

/** Reads labels up to their closing brace; gives back what stands behind it. */
const labels = (text: string, line: string): readonly [ReadonlyMap<string, string>, rest: string] => {
  const read = new Map<string, string>()
  let rest = text
  while (!rest.startsWith("}")) {
    if (read.size > 0) {
      if (!rest.startsWith(",")) fail("no comma between labels", line)
      rest = rest.slice(1)
    }
    const match = /^(?<name>[a-zA-Z_][a-zA-Z0-9_]*)="(?<value>(?:[^"\\]|\\.)*)"/s.exec(rest)
    const { name, value } = match?.groups ?? fail("not a label", line)
    if (name === undefined || value === undefined) return fail("not a label", line)
    if (name.startsWith("__")) fail("a reserved label", line)
    if (read.has(name)) fail("one label twice", line)
    read.set(name, unescape(value, true, line))
    rest = rest.slice(match?.[0].length)
  }
  return [read, rest.slice(1)]
}

const sample = (line: string, open: boolean): Sample => {
  const groups = sampleLine.exec(line)?.groups ?? fail("not a sample", line)
  const name = groups["name"] ?? ""
  const [own, rest] = groups["rest"] === undefined
    ? [new Map<string, string>(), groups["bare"] ?? ""]
    : labels(groups["rest"], line)
  const [, value = "", behind] = /^ (\S+)(?: # (.*))?$/s.exec(rest) ?? fail("no value", line)
  const read = { name, labels: own, value: number(value, line) }
  if (behind === undefined) return read
  if (!open) fail("an exemplar in a format that has none", line)
  if (!/(_total|_bucket)$/.test(name)) fail("an exemplar where none may be", line)
  if (!behind.startsWith("{")) fail("an exemplar without labels", line)
  const [of, tail] = labels(behind.slice(1), line)
  if ([...of].flat().join("").length > 128) fail("an exemplar with too many characters", line)
  const [, observed = "", at = ""] = /^ (\S+) (\S+)$/.exec(tail) ?? fail("no exemplar value", line)
  return { ...read, exemplar: { labels: of, value: number(observed, line), at: number(at, line) } }
}

const meta = (line: string, open: boolean) => {
  const { kind = "", name = "", value = "" } = metaLine.exec(line)?.groups ?? fail("not a line of metadata", line)
  if (kind === "UNIT" && !open) fail("a unit in a format that has none", line)
  return { kind, name, value: kind === "HELP" ? unescape(value, open, line) : value }
}

const checkSeries = (family: Family) => {
  const seen = new Set<string>()
  const key = ({ labels, name }: Sample) => JSON.stringify([name, [...labels].sort()])
  for (const each of family.samples) {
    if (seen.has(key(each))) fail("one series twice", key(each))
    seen.add(key(each))
  }
}

/** Buckets of one series stand together, rise, and end with infinity and the count. */
const checkHistogram = (family: Family, open: boolean) => {
  const series = new Map<string, Array<Sample>>()
  let last: string | undefined
  for (const each of family.samples) {
    const key = JSON.stringify([...each.labels].filter(([name]) => name !== "le").sort())
    if (key !== last && series.has(key)) fail("a series in two places", key)
    last = key
    series.set(key, [...(series.get(key) ?? []), each])
  }
  for (const [key, samples] of series) {
    const buckets = samples.filter(({ name }) => name.endsWith("_bucket"))
    const bounds = buckets.map(({ labels }) => labels.get("le") ?? fail("a bucket without bound", key))
    for (const bound of bounds) {
      if (!/^(\+Inf|-?\d+(\.\d+)?(e[+-]\d+)?)$/.test(bound) || /^-?\d+$/.test(bound)) fail("not canonical", bound)
    }
    const numbers = bounds.map((bound) => bound === "+Inf" ? Infinity : Number(bound))
    if (numbers.at(-1) !== Infinity) fail("no bucket of infinity", key)
    for (let index = 1; index < numbers.length; index++) {
      if (!(numbers[index]! > numbers[index - 1]!)) fail("bounds do not rise", key)
      if (buckets[index]!.value < buckets[index - 1]!.value) fail("buckets fall", key)
    }
    const count = samples.find(({ name }) => name.endsWith("_count"))
    if (count !== undefined && count.value !== buckets.at(-1)?.value) fail("the count is not that of infinity", key)
    const sum = samples.find(({ name }) => name.endsWith("_sum"))
    if ((sum === undefined) !== (count === undefined)) fail("a sum or a count alone", key)
    if ((sum === undefined) !== (open && numbers[0]! < 0)) {
      fail("a sum of what may be negative, or none of what is not", key)
    }
  }
}

/** Reads one scrape. */
export const parse = (text: string, format: "openmetrics" | "text"): ReadonlyArray<Family> => {
  const open = format === "openmetrics"
  if (!text.endsWith("\n")) fail("no line end at the end", text.slice(-80))
  const lines = text.slice(0, -1).split("\n")
  if (open && lines.pop() !== "# EOF") fail("no EOF at the end", text.slice(-80))
  const families: Array<Family> = []
  const names = new Set<string>()
  let current: { name: string; type?: string; help?: string; unit?: string; samples: Array<Sample> } | undefined
  const close = () => {
    if (current === undefined) return
    const { help = "", name, samples, type, unit } = current
    if (type === undefined) return fail("a family without type", name)
    const family = { name, type, help, unit, samples }
    const known: Readonly<Record<string, ReadonlyArray<string>>> = suffixes[format]
    // Not only the family's own name: two families may not share the name of any sample either.
    for (const taken of new Set([name, ...(known[type] ?? fail("unknown type", name)).map((each) => name + each)])) {
      if (names.has(taken)) fail("a name of two families", taken)
      names.add(taken)
    }
    checkSeries(family)
    if (type === "histogram") checkHistogram(family, open)
    families.push(family)
    current = undefined
  }
  for (const line of lines) {
    if (line === "# EOF") fail("EOF in the middle", line)
    if (line.startsWith("#")) {
      const { kind, name, value } = meta(line, open)
      if (current?.name !== name || current.samples.length > 0) {
        close()
        current = { name, samples: [] }
      }
      const key = kind === "HELP" ? "help" : kind === "TYPE" ? "type" : "unit"
      if (current[key] !== undefined) fail("one line of metadata twice", line)
      if (key === "unit" && !name.endsWith(`_${value}`)) fail("a unit that is not in the name", line)
      current[key] = value
    } else {
      const read = sample(line, open)
      const { name = "", type = "" } = current ?? {}
      const known: Readonly<Record<string, ReadonlyArray<string>>> = suffixes[format]
      if (!(known[type] ?? []).some((suffix) => name + suffix === read.name)) fail("a sample of no family", line)
      current?.samples.push(read)
    }
  }
  close()
  return families
}
