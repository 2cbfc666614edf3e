/**
 * When collectors start and end, computed by giving each in turn the slot that is free first.
 */
export interface Source {
  readonly ends: "well" | "failing" | "dying"
  /** Whether it ignores its interruption. */
  readonly deaf: boolean
  readonly available: boolean
  readonly takes: number
  readonly timeout: number
  readonly phase: number
}

export interface Outcome {
  readonly status: string
  readonly waited: number
  readonly duration: number
}

export interface Limits {
  readonly concurrency: number
  readonly deadline: number
  readonly grace: number
}

const earliest = (slots: ReadonlyArray<number>) => slots.indexOf(Math.min(...slots))

export const whatIsReported = (sources: ReadonlyArray<Source>, limits: Limits): ReadonlyArray<Outcome> => {
  const outcomes = new Map<Source, Outcome>()
  let begin = 0
  for (const phase of [0, 1, 2]) {
    const slots = Array.from({ length: limits.concurrency }, () => begin)
    for (const source of sources.filter((source) => source.phase === phase)) {
      const slot = earliest(slots)
      const start = slots[slot] ?? 0
      const outcome = start >= limits.deadline
        ? { status: "interrupted", waited: limits.deadline, duration: 0 }
        : { waited: start, ...ending(source, start, limits) }
      outcomes.set(source, outcome)
      slots[slot] = start + outcome.duration
    }
    begin = Math.max(...slots)
  }
  return sources.flatMap((source) => outcomes.get(source) ?? [])
}

const ending = (source: Source, start: number, { deadline, grace }: Limits) => {
  if (!source.available) return { status: "skipped", duration: 0 }
  const left = Math.min(source.timeout, deadline - start)
  if (source.takes < left) return { status: source.ends === "well" ? "ok" : "error", duration: source.takes }
  const status = source.timeout < deadline - start ? "timeout" : "interrupted"
  if (!source.deaf) return { status, duration: left }
  return source.takes < left + grace ? { status, duration: source.takes } : { status: "stuck", duration: left + grace }
}
