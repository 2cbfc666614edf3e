/**
 * What somebody may do to a routine from outside: restart, stop, interrupt or release it, for a reason and on the record.
 *
 * An action is begun or refused at once, and has an id by which its result is asked for. Each is told as an `Acted` event
 * in the orchestrator's own stream and as a line of the log: who, what, to whom, why, and with what result. The reason
 * travels with the interruption, so that the history of the routine shows it.
 *
 * **Example** (Stopping a child, and reading who did it)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator } from "@effect-orchestra/core"
 * import { Actions } from "@effect-orchestra/observability"
 * import { Effect, Layer, References } from "effect"
 *
 * const told: Array<string> = []
 * const program = Effect.gen(function*() {
 *   yield* Orchestrator.instrument((event) => {
 *     if (event._tag === "Acted") told.push(`${event.by} ${event.action} ${event.path}: ${event.result}`)
 *   })
 *   yield* Orchestrator.fork(Effect.never, { name: "importer" })
 *   const [importer] = yield* Orchestrator.list
 *   const actions = yield* Actions.Actions
 *   const asked = { action: "stop", id: importer?.id ?? "", by: "ada", reason: "eats the disk" } as const
 *   const { actionId } = yield* actions.request(asked)
 *   while (Actions.isUnderWay(yield* actions.get(actionId))) yield* Effect.yieldNow
 * })
 *
 * const layer = Layer.provideMerge(Actions.Actions.layer, Orchestrator.layer)
 * const quiet = Effect.provideService(program, References.MinimumLogLevel, "None")
 * await Effect.runPromise(quiet.pipe(Effect.scoped, Effect.provide(layer)))
 * told // => ["ada stop /orchestra/importer: requested", "ada stop /orchestra/importer: done"]
 * ```
 *
 * @since 0.1.0
 */
import type { Body } from "@effect-orchestra/core/Event"
import { type Kernel, type Node, path } from "@effect-orchestra/core/Kernel"
import { Orchestrator } from "@effect-orchestra/core/Orchestrator"
import * as Routine from "@effect-orchestra/core/Routine"
import { RoutineRecord } from "@effect-orchestra/core/RoutineRecord"
import * as Intervention from "@effect-orchestra/supervisor/Intervention"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { type Acted, Action } from "./ActionEvent.ts"
import * as Attributes from "./Attributes.ts"
import { NodeNotFound } from "./internal/AnswerSchema.ts"
import { secret } from "./Token.ts"

export { Acted, Action } from "./ActionEvent.ts"

/** Characters that a reason may have. */
const maxReason = 500

/**
 * The body of `POST /orchestra/api/v1/routines/{id}/actions/{action}`: why, and for `interrupt` the name of the routine.
 *
 * @category models
 * @since 0.1.0
 */
export const ActionBody = Schema.Struct({
  reason: Schema.optionalKey(Schema.String),
  confirm: Schema.optionalKey(Schema.String)
})

/**
 * The answer of `GET /orchestra/api/v1/actions/{id}`. A restart tells the routine in which the child runs from then on.
 *
 * @category models
 * @since 0.1.0
 */
export const ActionStatus = Schema.Struct({
  v: Schema.Literal(1),
  actionId: Schema.String,
  action: Action,
  target: Schema.Struct({ id: Schema.String, name: Schema.String, path: Schema.String }),
  by: Schema.NullOr(Schema.String),
  reason: Schema.String,
  state: Schema.Literals(["running", "done", "failed"]),
  requestedAt: Schema.Finite,
  endedAt: Schema.NullOr(Schema.Finite),
  detail: Schema.NullOr(Schema.String),
  routine: Schema.NullOr(Schema.String)
})

/** @since 0.1.0 */
export type ActionStatus = typeof ActionStatus.Type

/**
 * An action lacks its reason, or its reason is too long.
 *
 * @category errors
 * @since 0.1.0
 */
export class MissingReason extends Schema.TaggedError<MissingReason>()("MissingReason", { length: Schema.Int }) {
  override get message() {
    return `an action needs a reason of 1 to ${maxReason} characters, got: ${this.length}`
  }
}

/**
 * An interruption is confirmed by the name of the routine.
 *
 * @category errors
 * @since 0.1.0
 */
export class NotConfirmed extends Schema.TaggedError<NotConfirmed>()("NotConfirmed", { name: Schema.String }) {
  override get message() {
    return `to interrupt it, \`confirm\` must be the name of the routine: ${JSON.stringify(this.name)}`
  }
}

/**
 * The routine is not in a state in which that can be done. `detail` is what its supervisor says, or why not.
 *
 * @category errors
 * @since 0.1.0
 */
export class WrongState extends Schema.TaggedError<WrongState>()("WrongState", {
  path: Schema.String,
  detail: Schema.String
}) {
  override get message() {
    return this.detail
  }
}

/**
 * What is asked for: by whom, to which routine, and why.
 *
 * @category models
 * @since 0.1.0
 */
export interface Request {
  readonly action: Action
  /** The id of the routine. */
  readonly id: string
  readonly by: string | null
  readonly reason: string
  /** The name of the routine: an `interrupt` needs it. */
  readonly confirm?: string | undefined
}

/**
 * Whether an action has not ended yet.
 *
 * @category guards
 * @since 0.1.0
 */
export const isUnderWay = (status: Option.Option<ActionStatus>): boolean =>
  Option.isSome(status) && status.value.state === "running"

/** So many actions are remembered. */
const kept = 200

/**
 * The actions on the routines of one orchestrator.
 *
 * @category services
 * @since 0.1.0
 */
export class Actions extends Context.Service<Actions, {
  /**
   * Begins an action, and returns at once. Fails with `MissingReason`, `NodeNotFound`, `NotConfirmed`, or with
   * `WrongState` in the words of the supervisor. An action that is under way goes on when the server is closed.
   */
  readonly request: (
    request: Request
  ) => Effect.Effect<ActionStatus, MissingReason | NodeNotFound | NotConfirmed | WrongState>
  /** An action by its id; the last 200 are remembered. */
  readonly get: (actionId: string) => Effect.Effect<Option.Option<ActionStatus>>
}>()("@effect-orchestra/observability/Actions") {
  /**
   * @category layers
   * @since 0.1.0
   */
  static readonly layer: Layer.Layer<Actions, never, Orchestrator> = Layer.effect(this, Effect.suspend(() => make))
}

const make = Effect.gen(function*() {
  const orchestrator = yield* Orchestrator
  const { kernel } = orchestrator
  const actions = new Map<string, ActionStatus>()

  const remember = (status: ActionStatus): ActionStatus => {
    actions.set(status.actionId, status)
    for (const oldest of actions.keys()) {
      if (actions.size <= kept) break
      actions.delete(oldest)
    }
    return status
  }

  const request = Effect.fnUntraced(function*({ action, by, confirm, id, reason: given }: Request) {
    const reason = given.trim()
    if (reason === "" || reason.length > maxReason) return yield* new MissingReason({ length: reason.length })
    const found = yield* Effect.provideService(Intervention.find(id), Orchestrator, orchestrator)
    const record = Option.getOrUndefined(found)
    // Every routine is a record; the interface hides it.
    if (!(record instanceof RoutineRecord)) return yield* new NodeNotFound({ node: id })
    const status: ActionStatus = {
      v: 1,
      actionId: `a-${secret().slice(0, 16)}`,
      action,
      target: { id, name: record.name, path: path(record) },
      by,
      reason,
      state: "running",
      requestedAt: yield* Clock.currentTimeMillis,
      endedAt: null,
      detail: null,
      routine: null
    }
    const tell = (result: typeof Acted.Type["result"], detail: string | null) =>
      audit(kernel, record, { actionId: status.actionId, action, by, reason, result, detail })
    const refuse = <E extends Error>(error: E) => Effect.andThen(tell("refused", error.message), Effect.fail(error))
    if (action === "interrupt" && confirm !== record.name) return yield* refuse(new NotConfirmed({ name: record.name }))
    const begun = yield* Effect.catch(
      begin(action, record, reason),
      (error) => refuse(new WrongState({ path: status.target.path, detail: error.message }))
    )
    remember(status)
    yield* tell("requested", null)
    const ended = Effect.fnUntraced(function*(exit: Exit.Exit<Outcome, Error>) {
      const endedAt = yield* Clock.currentTimeMillis
      const end = Exit.isSuccess(exit)
        ? { ...exit.value, state: "done" as const }
        : { state: "failed" as const, detail: messageOf(exit.cause), routine: null }
      if (actions.has(status.actionId)) remember({ ...status, ...end, endedAt })
      yield* tell(end.state, end.detail)
    })
    // On its own: it outlives the request, and who stops the routine of this server wants it told all the same.
    yield* Effect.forkDetach(Effect.onExit(begun, ended), { startImmediately: true })
    return actions.get(status.actionId) ?? status
  })

  return Actions.of({ request, get: (id) => Effect.sync(() => Option.fromUndefinedOr(actions.get(id))) })
})

interface Outcome {
  readonly detail: string | null
  readonly routine: string | null
}

/** Refuses at once, or gives what carries it through. */
const begin = (
  action: Action,
  record: RoutineRecord,
  reason: string
): Effect.Effect<Effect.Effect<Outcome, Error>, Error> => {
  const runsIn = Effect.map(({ id }: Routine.Routine<unknown, unknown>): Outcome => ({ detail: null, routine: id }))
  switch (action) {
    case "restart":
      return Effect.map(Intervention.restart(record, reason), (through) => runsIn(through))
    case "release":
      return Effect.map(Intervention.release(record), (through) => runsIn(through))
    case "stop":
      if (record.isFinal) return Effect.fail(wrongState(record, "has ended"))
      return Effect.succeed(Effect.map(
        Routine.stop(record, "5 seconds", reason),
        (how): Outcome => ({
          detail: how === "abandoned" ? "it ignored its interruption, and was abandoned" : null,
          routine: null
        })
      ))
    case "interrupt":
      if (record.isFinal) return Effect.fail(wrongState(record, "has ended"))
      if (record.scope === undefined) return Effect.fail(wrongState(record, "does not run"))
      return Effect.succeed(Effect.as(Routine.interrupt(record, reason), { detail: null, routine: null }))
  }
}

const wrongState = (record: RoutineRecord, how: string) =>
  new WrongState({ path: path(record), detail: `${path(record)} ${how} (${record.status})` })

const messageOf = (cause: Cause.Cause<unknown>): string => {
  const error = Cause.squash(cause)
  return error instanceof Error ? error.message : String(error)
}

type Told = Body<"Acted">

/** On the record: an event in its place among the others, and a line of the log. */
const audit = (kernel: Kernel, node: Node, told: Told): Effect.Effect<void> => {
  const { action, actionId, by, detail, reason, result } = told
  const emit = Effect.sync(() =>
    kernel.writer.submit({
      run: () => {
        if (kernel.bus.observed) kernel.bus.emit("Acted", node, told)
      }
    })
  )
  const more = detail === null ? "" : ` (${detail})`
  const line = `${action} of ${path(node)} ${result} by ${by ?? "somebody"}: ${reason}${more}`
  return Effect.andThen(
    emit,
    Effect.annotateLogs(Effect.logInfo(line), {
      [Attributes.event]: "routine.acted",
      [Attributes.routineId]: node.id,
      [Attributes.actionId]: actionId
    })
  )
}
