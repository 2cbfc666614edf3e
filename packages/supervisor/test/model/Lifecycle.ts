/** The life of one child as a naive reader of its events knows it: which event may follow which. */

export interface Entry {
  readonly _tag: string
  readonly id: string
  readonly incarnation: number
  /** On whose behalf it is asked to stop. */
  readonly by?: { readonly reason: string } | null
}

/** What is told of a child of which nothing runs. */
const between = new Set(["Stopped", "Released", "BackoffStarted"])

export class Lifecycle {
  private id = ""
  private incarnation: number
  /** The present run: there was none yet, it goes on, it has ended, or the next has taken its place. */
  private run: "none" | "live" | "ended" | "left" = "none"
  private isReady = false
  private isAsked = false
  private isStuck = false
  /** Whether it is not to run again. */
  private isOver = false
  private isQuarantined = false
  private isAbandoned = false
  private isExpectedToEndLate = false
  private isStopped = true
  /** Whether it is what a run was made that another has replaced: it begins where the run before it ends. */
  isLeft = false

  /** Of a routine that goes on where another, at the same path, has ended. */
  constructor(before?: Lifecycle) {
    this.incarnation = before?.incarnation ?? 0
  }

  /** What is wrong with the next event of this child, if anything. */
  next(entry: Entry): string | undefined {
    const { _tag, id, incarnation } = entry
    if (_tag === "Forked") return this.fork(id)
    if (id !== this.id) return `${_tag} of ${id}, which is not ${this.id}`
    if (_tag === "Restarted" || (this.run === "none" && incarnation > 0 && !between.has(_tag))) {
      const fault = this.begin(entry)
      if (fault !== undefined || _tag === "Restarted") return fault
    }
    if (incarnation !== this.incarnation && this.run !== "none") {
      return `${_tag} of run ${incarnation}, not of ${this.incarnation}`
    }
    const why = this.whyNot(_tag)
    if (why !== undefined) return `${_tag}, but ${why}`
    this.apply(entry)
    return undefined
  }

  private fork(id: string): string | undefined {
    if (!this.isStopped) return "Forked, but the routine before has not ended"
    if (id === this.id) return "one routine was forked twice"
    const { incarnation, isQuarantined } = this
    Object.assign(this, new Lifecycle(), { id, incarnation, isQuarantined, isStopped: false })
    return undefined
  }

  private begin({ _tag, incarnation }: Entry): string | undefined {
    if (this.run === "live") return `${_tag}, but the run before goes on`
    if (this.isOver) return `${_tag}, but it was not to run again`
    // One that was forgotten, and comes again, and what is left of a run that was replaced, count anew.
    const counts = incarnation === this.incarnation + 1 ||
      (this.run === "none" && (incarnation === 1 || _tag === "Abandoned"))
    if (!counts) return `${_tag} of run ${incarnation} after run ${this.incarnation}`
    this.isLeft = _tag === "Abandoned" && incarnation !== this.incarnation + 1
    this.incarnation = incarnation
    this.run = "live"
    this.isReady =
      this.isAsked =
      this.isStuck =
      this.isQuarantined =
        false
    return undefined
  }

  private whyNot(tag: string): string | undefined {
    if (this.isExpectedToEndLate !== (tag === "EndedLate")) return "it was abandoned, and has ended"
    if (this.isStopped && !["Exited", "EndedLate", "Replaced", "Released"].includes(tag)) {
      return "it has its final state"
    }
    const isLive = this.run === "live"
    switch (tag) {
      case "Ready":
        return !isLive || this.isReady ? "there is no run that was not ready" : undefined
      case "Exited":
        return !isLive ? "there is no run" : undefined
      case "StopRequested":
        return !isLive || this.isAsked ? "there is no run that was not asked" : undefined
      case "Stuck":
        return !isLive || this.isStuck ? "there is no run that was not stuck" : undefined
      case "Abandoned":
        return !isLive || this.isAbandoned ? "there is no run that was not abandoned" : undefined
      case "Replaced":
        return !isLive || !(this.isStuck || this.isAbandoned) ? "no run ignores its interruption" : undefined
      case "BackoffStarted":
        return this.isOver ? "it waits for nothing" : undefined
      case "Quarantined":
        return this.isQuarantined ? "it is quarantined" : undefined
      case "Released":
        return !this.isQuarantined ? "it is not quarantined" : undefined
      case "Stopped":
        return isLive && !this.isAbandoned ? "a run goes on" : undefined
      case "EndedLate":
        return undefined
      default:
        return "nobody knows it"
    }
  }

  private apply({ _tag, by }: Entry): void {
    switch (_tag) {
      case "Ready":
        this.isReady = true
        return
      case "Exited":
        this.run = "ended"
        this.isExpectedToEndLate = this.isAbandoned
        return
      case "StopRequested":
        this.isAsked = true
        if (by?.reason !== "restart") this.isOver = true
        return
      case "Stuck":
        this.isStuck = true
        return
      case "Abandoned":
        this.isAbandoned = this.isOver = true
        return
      case "Replaced":
        if (!this.isAbandoned) this.run = "left"
        return
      case "Quarantined":
        this.isQuarantined = this.isOver = true
        return
      case "Released":
        this.isQuarantined = false
        return
      case "Stopped":
        this.isStopped = this.isOver = true
        return
      case "EndedLate":
        this.isExpectedToEndLate = false
    }
  }

  get isFinal(): boolean {
    return this.isStopped && (this.run !== "live" || !this.isAbandoned)
  }
}
