import type * as Context from "effect/Context"
import * as Exit from "effect/Exit"
import { type ExitReason, reasonOf, type RunExit, type State } from "../Event.ts"
import type { Ended, Past } from "../History.ts"
import { type Kernel, path, segment } from "../Kernel.ts"
import type { RoutineRecord } from "../RoutineRecord.ts"
import type { RoutineSnapshot } from "../Snapshot.ts"
import { healthOf, runExit } from "./RunExit.ts"

/**
 * A routine that has ended and is no longer listed: what can be shown of it, and nothing that it held. Most are never
 * shown, so what can wait is worked out then.
 */
export class EndedRoutine implements Ended {
  readonly kernel: Kernel
  private readonly number: number
  readonly name: string
  readonly bare: boolean
  private readonly above: string | undefined
  private readonly isSupervised: boolean
  private readonly status: State
  private readonly since: number
  readonly startedAt: number | undefined
  readonly incarnation: number
  private readonly restarts: number
  private readonly forkSite: string | undefined
  private readonly attributes: Readonly<Record<string, string>> | undefined
  /** An interruption holds nothing but who asked for it. */
  private readonly lastExit: RunExit | Exit.Exit<void>

  private readonly by: Context.Context<never> | undefined

  constructor(
    record: RoutineRecord,
    exit: Exit.Exit<unknown, unknown>,
    reason: ExitReason,
    past: Past | undefined,
    by?: Context.Context<never>
  ) {
    const { kernel, owner, startedAt } = record
    this.kernel = kernel
    this.by = by
    this.number = record.number
    this.name = record.name
    this.bare = record.bare
    this.above = owner === undefined || owner === kernel ? undefined : path(owner)
    this.isSupervised = record.isSupervised
    this.status = record.status
    this.since = record.since
    this.startedAt = startedAt
    this.incarnation = record.incarnation
    this.restarts = past?.restarts ?? 0
    this.forkSite = past?.forkSite
    this.attributes = record.options.attributes
    this.lastExit = past?.lastExit ??
      (Exit.isSuccess(exit)
        ? Exit.void
        : reason === "interrupted"
        ? exit as Exit.Exit<never>
        : runExit(record, reason, exit, record.since, undefined, past?.traceId))
  }

  get id(): string {
    return `r-${this.number}`
  }

  snapshot(): RoutineSnapshot {
    const { above, kernel, lastExit, startedAt } = this
    const { writer } = kernel
    return {
      kind: "routine",
      id: this.id,
      name: this.name,
      path: `${above ?? path(kernel)}/${segment(this)}`,
      state: this.status,
      health: healthOf(this.status, false),
      since: writer.shown(this.since),
      ready: false,
      startedAt: startedAt === undefined ? null : writer.shown(startedAt),
      incarnation: this.incarnation,
      restarts: this.restarts,
      supervisor: this.isSupervised && above !== undefined ? above : null,
      nextStartAt: null,
      budget: null,
      lastExit: Exit.isExit(lastExit)
        ? runExit(this, reasonOf(lastExit), lastExit, this.since, this.by)
        : lastExit,
      lastBeat: null,
      info: {},
      forkSite: this.forkSite ?? null,
      attributes: this.attributes ?? {}
    }
  }
}
