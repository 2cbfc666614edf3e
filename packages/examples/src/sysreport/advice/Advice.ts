/**
 * What a rule of recommendations is, and what its conditions and commands are made of.
 */
import type { Data, Findings, Source } from "../Findings.ts"

/** What speaks for a recommendation here, and how it is followed. */
export interface Occasion {
  /** By name; what is `undefined` is not told. */
  readonly evidence: Readonly<Record<string, number | string | undefined>>
  readonly commands: ReadonlyArray<string>
  /** What makes it outlive the next start. */
  readonly persistent: ReadonlyArray<string>
  /** Instead of that of the rule, to name a device. */
  readonly title?: string
}

export interface Advice {
  readonly title: string
  readonly category: string
  readonly type: "fix" | "optimization"
  readonly impact: "high" | "medium" | "low"
  /** What it is good for. */
  readonly gain: string
  /** The metrics of the anomalies that it is for: it is as urgent as the worst of them. */
  readonly against: ReadonlyArray<string>
  readonly source: string
  /** One for each thing that it is to be done to; none if there is no reason. */
  readonly when: (data: Findings["data"]) => ReadonlyArray<Occasion>
}

/** Makes the rules that stand on the data of a collector. Data that is not there is no reason for anything. */
export const from = <S extends Source>(source: S) =>
(
  advice: Omit<Advice, "category" | "when"> & {
    readonly when: (data: Data[S]) => ReadonlyArray<Occasion> | false | undefined
  }
): Advice => ({
  category: source,
  ...advice,
  when: (data) => {
    const found: Data[S] | undefined = data[source]
    return found === undefined ? [] : advice.when(found) || []
  }
})

type Evidence = Occasion["evidence"]

export const above = (value: number | undefined, limit: number): boolean => value !== undefined && value > limit
export const below = (value: number | undefined, limit: number): boolean => value !== undefined && value < limit

/** Settings of the kernel, now and in a file that is read at the next start; no reason if there are none. */
export const settings = (
  wanted: Readonly<Record<string, number | string | undefined>>,
  evidence: Evidence
): ReadonlyArray<Occasion> => {
  const values = Object.entries(wanted).filter(([, value]) => value !== undefined)
  return values.length === 0 ? [] : [{
    evidence,
    commands: values.map(([name, value]) => `sysctl -w ${name}=${quoted(String(value))}`),
    persistent: values.map(([name, value]) => `echo '${name}=${value}' >> /etc/sysctl.d/99-sysreport.conf`)
  }]
}

/** At least so much, if it is less now. */
export const raise = (now: number | undefined, to: number): number | undefined => below(now, to) ? to : undefined

/** Something to look into. */
export const look = (commands: ReadonlyArray<string>, evidence: Evidence): ReadonlyArray<Occasion> => [
  { evidence, commands, persistent: [] }
]

/** Names come from files, and may be anything. */
export const quoted = (word: string): string => /^[\w.:@/-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`

export const gregg = (chapter: number) => `Brendan Gregg, Systems Performance, chapter ${chapter}`
export const kernel = (page: string) => `Linux kernel documentation, ${page}`
