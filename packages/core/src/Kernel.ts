/**
 * The state behind one orchestrator: its tree of nodes, its ids, its counts and its event bus.
 *
 * Everything that lives in the tree (routines, groups, supervisors) is a `Node`. The kernel is the only place that
 * knows them all, and only the writer changes it.
 *
 * For packages that add their own kind of node; programs use `Orchestrator`.
 *
 * @stability unstable
 * @since 0.1.0
 */
import type * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import { SupervisorFailure } from "./CoreError.ts"
import type { Body, CancelledBy, EventMap, OrchestratorEvent, State } from "./Event.ts"
import { History } from "./History.ts"
import type { Observers } from "./Observer.ts"
import type { Phase } from "./Shutdown.ts"
import type { NodeSnapshot, TemplateStats, TreeSnapshot } from "./Snapshot.ts"
import type { Walker } from "./Walk.ts"
import { Writer } from "./Writer.ts"

/**
 * A place in the tree. `stop` ends whatever lives there before the monotonic time `deadline`, or abandons it; it
 * returns undefined when that needed no waiting.
 *
 * @category models
 * @since 0.1.0
 */
export abstract class Node {
  abstract readonly kind: NodeSnapshot["kind"]
  abstract readonly incarnation: number
  abstract readonly status: State
  /** Its place in the order of all nodes of the orchestrator, and the number of its id. */
  readonly number: number
  readonly name: string
  readonly owner: Node | undefined
  /** Whether it adds no segment to the path: a supervisor that is the child of another lives at its child's path. */
  get transparent(): boolean {
    return false
  }
  /** Whether it holds its bare name among its siblings; the others get the segment `name#id`. */
  bare = false
  children: Children | undefined = undefined
  /** Its place among its siblings; the children of its owner keep it. */
  previous: Node | undefined = undefined
  next: Node | undefined = undefined
  holder: Holder | undefined = undefined

  constructor(number: number, name: string, owner: Node | undefined) {
    this.number = number
    this.name = name
    this.owner = owner
  }

  get id(): string {
    return `${this.kind.charAt(0)}-${this.number}`
  }

  abstract snapshot(): NodeSnapshot
  abstract stop(limits: StopLimits): Effect.Effect<void> | undefined
}

/**
 * What becomes of the context that a run is started with, when the orchestrator stands in a context that says so: a meter
 * puts its scheduler below every routine, also below one that a program forks which knows nothing of it.
 *
 * @category services
 * @since 0.1.0
 */
export const RunContext = Context.Reference<((context: Context.Context<never>) => Context.Context<never>) | undefined>(
  "@effect-orchestra/core/Kernel/RunContext",
  { defaultValue: () => undefined }
)

/** What travels with an interruption, as an annotation of its cause. */
class Cancellation extends Context.Service<Cancellation, CancelledBy>()("@effect-orchestra/core/Cancellation") {}

/**
 * The annotations of an interruption: why, and on behalf of which node.
 *
 * @category constructors
 * @since 0.1.0
 */
export const because = (reason: string, requester: Node | undefined): Context.Context<never> => {
  // The path is read when somebody looks, and once for all whom it interrupts.
  let known: string | null = null
  const by: CancelledBy = {
    reason,
    get requester() {
      return requester === undefined ? null : known ??= path(requester)
    }
  }
  // An annotation is nothing that an effect requires.
  return Context.make(Cancellation, by) as Context.Context<never>
}

/**
 * What the annotations of a cause say of an interruption; null when nobody said why.
 *
 * @category getters
 * @since 0.1.0
 */
export const cancelledBy = (annotations: Context.Context<never> | undefined): CancelledBy | null => {
  if (annotations === undefined) return null
  const by = Context.getOrUndefined(annotations as Context.Context<Cancellation>, Cancellation)
  return by === undefined ? null : { reason: by.reason, requester: by.requester }
}

/**
 * The milliseconds of a duration that may be 0 or infinite, but not negative. `what` names it in the defect.
 *
 * @category getters
 * @since 0.1.0
 */
export const millisOf = (what: string, input: Duration.Input): number => {
  const millis = Number.isNaN(input) ? NaN : Duration.toMillis(input)
  if (!(millis >= 0)) throw new Error(`${what} is a duration of 0 or more, got: ${String(input)}`)
  return millis
}

/**
 * A number that has to be a positive integer. `what` names it in the defect.
 *
 * @category getters
 * @since 0.1.0
 */
export const positive = (what: string, n: number): number => {
  if (!(Number.isInteger(n) && n > 0)) throw new Error(`${what} is a positive integer, got: ${n}`)
  return n
}

/**
 * How long a stop may take: `grace` for a routine that was asked to drain, `interrupt` for one that has no bound of
 * its own, both in milliseconds, and never past the monotonic time `deadline`. `by` says why: the interruption itself
 * carries it, or with `told` only what is told of it (exit, snapshot, events), which costs half of it.
 *
 * @category models
 * @since 0.1.0
 */
export interface StopLimits {
  readonly grace: number
  readonly interrupt: number
  readonly deadline: number
  readonly by?: Context.Context<never> | undefined
  readonly told?: boolean | undefined
}

/**
 * The limits of a stop that belongs to no shutdown: 5 seconds for a drain, 5 for an interruption, no deadline.
 *
 * @category models
 * @since 0.1.0
 */
export const unbounded: StopLimits = { grace: 5000, interrupt: 5000, deadline: Infinity }

/** Who holds a name. It outlives its nodes, so that a name that comes and goes costs one look-up. */
interface Holder {
  node: Node | undefined
}

/** At least so many names are remembered before those that nobody holds are forgotten. */
const rememberedNames = 1000

/** The live children of a node, in the order they came, and who holds which bare name. */
class Children implements Iterable<Node> {
  first: Node | undefined = undefined
  last: Node | undefined = undefined
  private readonly holders = new Map<string, Holder>()
  private remembered = rememberedNames
  /** Whether the node has ended and only stands for what still runs below it. */
  isOrphaned = false

  get isEmpty(): boolean {
    return this.first === undefined
  }

  add(node: Node): void {
    const holder = this.holders.get(node.name) ?? this.remember(node.name)
    if (holder.node === undefined) {
      holder.node = node
      node.holder = holder
      node.bare = true
    }
    node.previous = this.last
    if (this.last === undefined) this.first = node
    else this.last.next = node
    this.last = node
  }

  delete(node: Node): void {
    if (node.holder !== undefined) node.holder.node = undefined
    const { next, previous } = node
    if (previous === undefined) this.first = next
    else previous.next = next
    if (next === undefined) this.last = previous
    else next.previous = previous
    node.holder = node.previous = node.next = undefined
  }

  *[Symbol.iterator](): Generator<Node> {
    for (let node = this.first; node !== undefined; node = node.next) yield node
  }

  private remember(name: string): Holder {
    if (this.holders.size >= this.remembered) {
      for (const [known, { node }] of this.holders) if (node === undefined) this.holders.delete(known)
      // Twice what is held: looking through them all is then paid for by as many new names.
      this.remembered = Math.max(rememberedNames, 2 * this.holders.size)
    }
    const holder: Holder = { node: undefined }
    this.holders.set(name, holder)
    return holder
  }
}

/**
 * The path of a node: `/` and the orchestrator's name, then the segment of each node down to it. A `/` in a name is
 * written `%2F`; of several live siblings with one name the first has the bare segment, the others `name#id`.
 *
 * @category getters
 * @since 0.1.0
 */
export const path = (node: Node): string => {
  let below = ""
  let at = node
  // No recursion: routines may nest deeper than the stack.
  for (; at.owner !== undefined; at = at.owner) if (!at.transparent) below = `/${segment(at)}${below}`
  return `/${escaped(at.name)}${below}`
}

/**
 * What a node adds to its path.
 *
 * @category getters
 * @since 0.1.0
 */
export const segment = (node: { readonly name: string; readonly bare: boolean; readonly id: string }): string =>
  node.bare ? escaped(node.name) : `${escaped(node.name)}#${node.id}`

const escaped = (name: string): string => name.includes("/") ? name.replaceAll("/", "%2F") : name

/**
 * What every snapshot says of its node; `since` is a monotonic time.
 *
 * @category getters
 * @since 0.1.0
 */
export const shown = <K extends Node["kind"]>(node: Node & { readonly kind: K }, kernel: Kernel, since: number) => ({
  kind: node.kind,
  id: node.id,
  name: node.name,
  path: path(node),
  state: node.status,
  since: kernel.writer.shown(since)
})

/** The counts behind `TemplateStats`. */
export class Template implements TemplateStats {
  readonly name: string
  private pending = 0
  private starting = 0
  private running = 0
  private backoff = 0
  private stopping = 0
  starts = 0
  restarts = 0

  constructor(name: string) {
    this.name = name
  }

  get active(): TemplateStats["active"] {
    const { backoff, pending, running, starting, stopping } = this
    return { pending, starting, running, backoff, stopping }
  }

  /** Counts a routine into a state, or out of it. Final states are not counted. */
  count(state: State, by: 1 | -1): void {
    switch (state) {
      case "running":
        this.running += by
        break
      case "pending":
        this.pending += by
        break
      case "starting":
        this.starting += by
        break
      case "stopping":
        this.stopping += by
        break
      case "backoff":
        this.backoff += by
    }
  }
}

/**
 * A routine that failed while it was being stopped.
 *
 * @category models
 * @since 0.1.0
 */
export interface Failure {
  readonly path: string
  readonly message: string
}

/**
 * A stop of the whole tree under way: its phase, how long the phases before took (milliseconds), and what failed.
 *
 * @category models
 * @since 0.1.0
 */
export class Stopping {
  private readonly writer: Writer
  private entered: number
  private readonly spent = new Map<Phase, number>()
  private readonly kernel: Kernel
  phase: Phase = "ask"
  /** How many were left running. */
  abandoned = 0
  readonly failures: Array<Failure> = []

  constructor(kernel: Kernel) {
    this.kernel = kernel
    this.writer = kernel.writer
    this.entered = this.writer.now()
    kernel.observers?.stopping?.(this, "ask")
  }

  enter(phase: Phase): void {
    if (phase === this.phase) return
    const now = this.writer.now()
    this.spent.set(this.phase, (this.spent.get(this.phase) ?? 0) + now - this.entered)
    this.phase = phase
    this.entered = now
    this.kernel.observers?.stopping?.(this, phase)
  }

  /** It is over, with so many left running. */
  end(abandoned: number): void {
    this.abandoned = abandoned
    this.enter("abandon")
    this.kernel.observers?.stopping?.(this, undefined)
  }

  /** The phases that took any time, in the order they were entered first. */
  get phases(): ReadonlyArray<{ readonly phase: Phase; readonly durationMillis: number }> {
    return Array.from(this.spent, ([phase, durationMillis]) => ({ phase, durationMillis }))
  }
}

/** Names beyond this many share one template, so that names made up at run time cannot grow the memory. */
const maxTemplates = 200

/**
 * What a kernel keeps: how many routines that have ended, and whether the lines that forked routines.
 *
 * @category models
 * @since 0.1.0
 */
export interface KernelOptions {
  readonly history?: number | undefined
  readonly forkSites?: boolean | undefined
}

/**
 * The state of one orchestrator.
 *
 * @category models
 * @since 0.1.0
 */
export class Kernel extends Node {
  readonly kind = "orchestrator"
  readonly incarnation = 1
  readonly writer: Writer
  readonly context: Context.Context<never>
  readonly bus: EventBus
  /** Who observes, if anybody does. */
  observers: Observers | undefined = undefined
  /** The context in which they looked last for a span in vain: most runs begin with that of the one before. */
  spanless: Context.Context<never> | undefined = undefined
  /** Who walks over the tree, if anybody does. */
  walkers: Set<Walker> | undefined = undefined
  readonly history: History
  /** Whether the line that forked a routine is kept. */
  readonly forkSites: boolean
  readonly runContext: ((context: Context.Context<never>) => Context.Context<never>) | undefined
  private entered: number
  readonly failed = Deferred.makeUnsafe<never, SupervisorFailure>()
  private index: Map<number, Node> | undefined = undefined
  readonly templates = new Map<string, Template>()
  private readonly overflow = new Template("_OTHER")
  private ids = 0
  /** How many routines are listed. */
  routines = 0
  status: State = "running"
  /** Whether it takes routines. */
  closing: "open" | "closing" | "closed" = "open"
  /** The stop under way. */
  stopping: Stopping | undefined = undefined

  constructor(name: string, context: Context.Context<never>, options: KernelOptions = {}) {
    super(0, name, undefined)
    this.context = context
    this.runContext = Context.get(context, RunContext)
    this.history = new History(options.history)
    this.forkSites = options.forkSites === true
    this.writer = new Writer(context)
    this.entered = this.writer.now()
    this.bus = new EventBus(this)
  }

  /** When it entered its state, as a time of day. */
  get since(): number {
    return this.writer.shown(this.entered)
  }

  nextId(): number {
    return ++this.ids
  }

  template(name: string): Template {
    let template = this.templates.get(name)
    if (template === undefined) {
      if (this.templates.size >= maxTemplates) return this.overflow
      template = new Template(name)
      this.templates.set(name, template)
    }
    return template
  }

  stats(): ReadonlyArray<TemplateStats> {
    return this.overflow.starts === 0 ? [...this.templates.values()] : [...this.templates.values(), this.overflow]
  }

  /** Every node but this one by its number, in their order. Kept from when it is first asked for. */
  get nodes(): ReadonlyMap<number, Node> {
    return this.index ??= new Map(
      descendants(this).sort((a, b) => a.number - b.number).map((node) => [node.number, node])
    )
  }

  /** The node of this id, which may be this one. */
  node(id: string): Node | undefined {
    if (id === this.id) return this
    const node = this.nodes.get(Number(id.slice(id.indexOf("-") + 1)))
    return node?.id === id ? node : undefined
  }

  add(node: Node): void {
    this.index?.set(node.number, node)
    if (node.kind === "routine") this.routines++
    const owner = node.owner ?? this
    ;(owner.children ??= new Children()).add(node)
  }

  remove(node: Node): void {
    // What was abandoned below it is still listed, and so is the way to it.
    if (node.children?.isEmpty === false) return void (node.children.isOrphaned = true)
    this.index?.delete(node.number)
    const owner = node.owner ?? this
    this.walkers?.forEach((walker) => walker.leave(node))
    owner.children?.delete(node)
    if (node.kind === "routine") this.routines--
    else this.observers?.removed?.(node)
    if (owner.children?.isOrphaned === true) this.remove(owner)
  }

  move(to: State): void {
    this.status = to
    this.entered = this.writer.now()
  }

  /** A supervisor without a parent gave up. */
  fail(path: string, cause: Cause.Cause<unknown>): void {
    Deferred.doneUnsafe(this.failed, Effect.fail(new SupervisorFailure({ path, cause })))
  }

  snapshot(): NodeSnapshot {
    return { ...shown(this, this, this.entered), health: "ok" }
  }

  stop(): undefined {
    return undefined
  }
}

/**
 * A node with all that stands below it.
 *
 * @category getters
 * @since 0.1.0
 */
export const tree = (node: Node): TreeSnapshot => ({
  node: node.snapshot(),
  children: Array.from(node.children ?? [], tree)
})

/**
 * Everything that stands below a node, parents before their children.
 *
 * @category getters
 * @since 0.1.0
 */
export const descendants = (node: Node): Array<Node> => {
  const found: Array<Node> = []
  const visit = (parent: Node) => {
    for (const child of parent.children ?? []) {
      found.push(child)
      visit(child)
    }
  }
  visit(node)
  return found
}

/**
 * A listener that is told of every event, synchronously and in order.
 *
 * @category models
 * @since 0.1.0
 */
export type Hook = (event: OrchestratorEvent) => void

/** How many events a stream may lag behind before it loses the oldest. */
const streamCapacity = 1024

/**
 * The event bus. Events are made only while somebody listens; a listener never slows the tree: a stream that lags
 * loses its oldest events and is told how many, a hook that throws is logged and removed.
 *
 * @category models
 * @since 0.1.0
 */
export class EventBus {
  private readonly kernel: Kernel
  private readonly hooks = new Set<Hook>()
  private readonly subscribers = new Set<Queue.Queue<OrchestratorEvent>>()
  private seq = 0
  /** Whether anybody listens: ask before making an event. */
  observed = false

  constructor(kernel: Kernel) {
    this.kernel = kernel
  }

  emit<Tag extends keyof EventMap>(tag: Tag, node: Node, body: Body<Tag>): void {
    const event = this.stamp(tag, node, ++this.seq, body)
    for (const hook of this.hooks) this.tell(hook, event)
    for (const subscriber of this.subscribers) Queue.offerUnsafe(subscriber, event)
  }

  instrument(hook: Hook): () => void {
    return this.listen(this.hooks, hook)
  }

  private listen<A>(listeners: Set<A>, listener: A): () => void {
    listeners.add(listener)
    this.observed = true
    return () => this.unlisten(listeners, listener)
  }

  private unlisten<A>(listeners: Set<A>, listener: A): void {
    listeners.delete(listener)
    this.observed = this.hooks.size > 0 || this.subscribers.size > 0
  }

  /** The events from the moment the stream is run. A gap in their numbers is what the stream was too slow for. */
  get stream(): Stream.Stream<OrchestratorEvent> {
    return Stream.unwrap(Effect.map(
      Effect.acquireRelease(
        Effect.tap(
          Queue.sliding<OrchestratorEvent>(streamCapacity),
          (queue) => Effect.sync(() => this.listen(this.subscribers, queue))
        ),
        (queue) => Effect.sync(() => this.unlisten(this.subscribers, queue))
      ),
      (queue) =>
        Stream.mapAccum(Stream.fromQueue(queue), () => this.seq, (last, event) => {
          const dropped = event.seq - last - 1
          return [event.seq, dropped === 0 ? [event] : [this.dropped(event.seq - 1, dropped), event]]
        })
    ))
  }

  private dropped(seq: number, dropped: number): OrchestratorEvent {
    return this.stamp("ListenerDropped", this.kernel, seq, { dropped })
  }

  private stamp<Tag extends keyof EventMap>(tag: Tag, node: Node, seq: number, body: Body<Tag>): OrchestratorEvent {
    const { writer } = this.kernel
    const event = {
      _tag: tag,
      seq,
      // The time of the decision, which is known, and not of each of the events that it makes.
      at: writer.shown(writer.now()),
      path: path(node),
      id: node.id,
      name: node.name,
      incarnation: node.incarnation,
      ...body
    }
    // The map's entry for the tag is exactly its base fields and its body, which the compiler cannot put together.
    return event as unknown as OrchestratorEvent
  }

  private tell(hook: Hook, event: OrchestratorEvent): void {
    try {
      hook(event)
    } catch (defect) {
      this.unlisten(this.hooks, hook)
      Effect.runForkWith(this.kernel.context)(
        Effect.logError("an instrumentation hook threw and was removed", defect)
      )
    }
  }
}
