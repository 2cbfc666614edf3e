/**
 * What a group does, told naively: one moment after the other, all of it looked at again at each. Knows nothing of the
 * package. No two tasks end at the same moment.
 */

export interface PlannedTask {
  readonly millis: number
  readonly end: "succeed" | "fail" | "die"
}

export interface Plan {
  readonly tasks: ReadonlyArray<PlannedTask>
  readonly limit: number
  readonly joiner: "failFast" | "all" | "collect" | "firstSuccess" | "firstExit" | "quorum" | "partial"
  /** Of a quorum. */
  readonly needed: number
  /** Of a partial result. */
  readonly time: number
  readonly deadline: number
  readonly halts: boolean
}

export interface Outcome {
  /** Such as `value: 3`, `values: 1,2`, `fail: 4`, `die: 5`, `none: 1,2`, `unreachable: 1 of 3: 0,2`, `deadline`. */
  readonly result: string
  readonly at: number
  readonly started: ReadonlyArray<number>
  readonly interrupted: ReadonlyArray<number>
  readonly peak: number
}

interface Running {
  readonly index: number
  readonly endsAt: number
}

export const outcome = (plan: Plan): Outcome => {
  const { deadline, halts, joiner, limit, needed, tasks, time } = plan
  const ended = new Map<number, PlannedTask["end"]>()
  const order: Array<number> = []
  let running: Array<Running> = []
  let next = 0
  let now = 0
  let peak = 0

  const indices = (end: PlannedTask["end"]) => tasks.flatMap((_, index) => ended.get(index) === end ? [index] : [])
  const exits = () => tasks.map((_, index) => `${index} ${ended.get(index) ?? "cut"}`).slice(0, next).join(",")
  const done = (result: string): Outcome => ({
    result,
    at: now,
    started: tasks.map((_, index) => index).slice(0, next),
    interrupted: running.map(({ index }) => index).sort((a, b) => a - b),
    peak
  })

  const verdict = (last: number | undefined, bodyEnded: boolean): string | undefined => {
    const end = last === undefined ? undefined : ended.get(last)
    const keepsDefects = joiner === "collect" || joiner === "partial"
    if (end === "die" && !keepsDefects) return `die: ${last}`
    const won = order.filter((index) => ended.get(index) === "succeed").slice(0, needed).sort((a, b) => a - b)
    // The body waits to fork one task: it is forked, and will run.
    const remaining = running.length + (next < tasks.length ? 1 : 0)
    switch (joiner) {
      case "failFast":
      case "all":
        return end === "fail" ? `fail: ${last}` : undefined
      case "firstSuccess":
        return end === "succeed" ? `value: ${last}` : undefined
      case "firstExit":
        return end === undefined ? undefined : end === "succeed" ? `value: ${last}` : `fail: ${last}`
      case "quorum":
        if (won.length === needed) return `values: ${won.join(",")}`
        return bodyEnded && won.length + remaining < needed
          ? `unreachable: ${won.length} of ${needed}: ${indices("fail").join(",")}`
          : undefined
      default:
        return undefined
    }
  }

  const final = (): string => {
    switch (joiner) {
      case "failFast":
        return "body"
      case "all":
        return `values: ${indices("succeed").join(",")}`
      case "collect":
      case "partial":
        return `exits: ${exits()}`
      case "firstSuccess":
        return `none: ${indices("fail").join(",")}`
      case "firstExit":
        return "none: "
      case "quorum":
        return `unreachable: ${indices("succeed").length} of ${needed}: ${indices("fail").join(",")}`
    }
  }

  for (;;) {
    while (next < tasks.length && running.length < limit) {
      running.push({ index: next, endsAt: now + (tasks[next]?.millis ?? 0) })
      next++
      peak = Math.max(peak, running.length)
    }
    const bodyEnded = next === tasks.length
    const early = bodyEnded ? verdict(undefined, true) : undefined
    if (bodyEnded && halts) return done(final())
    if (early !== undefined) return done(early)
    const first = running.reduce<Running | undefined>(
      (a, b) => a === undefined || b.endsAt < a.endsAt ? b : a,
      undefined
    )
    if (first === undefined) return done(final())
    const timeout = joiner === "partial" ? time : Infinity
    if (Math.min(deadline, timeout) <= first.endsAt) {
      now = Math.min(deadline, timeout)
      // A task that waits for its slot is unfinished.
      const waiting = timeout < deadline && next < tasks.length ? [`${next} cut`] : []
      return done(
        timeout < deadline ? `exits: ${[exits(), ...waiting].filter((part) => part !== "").join(",")}` : "deadline"
      )
    }
    now = first.endsAt
    running = running.filter((task) => task !== first)
    ended.set(first.index, tasks[first.index]?.end ?? "succeed")
    order.push(first.index)
    const stopped = verdict(first.index, bodyEnded)
    if (stopped !== undefined) return done(stopped)
  }
}
