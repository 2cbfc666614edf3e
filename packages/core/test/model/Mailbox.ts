/** A mailbox as simple as can be: lists, and after each step everybody who can go on does. */

export type Overflow = "suspend" | "drop_new" | "drop_old" | "fail"

export type Outcome =
  | { readonly _tag: "sent" }
  | { readonly _tag: "offered"; readonly taken: boolean }
  | { readonly _tag: "received"; readonly messages: ReadonlyArray<number> }
  | { readonly _tag: "handled"; readonly message: number; readonly attempt: number }
  | { readonly _tag: "failed"; readonly tag: string }
  | { readonly _tag: "interrupted" }

export type Step =
  | { readonly _tag: "send"; readonly messages: ReadonlyArray<number> }
  | { readonly _tag: "trySend"; readonly message: number }
  | { readonly _tag: "receive"; readonly min: number; readonly max: number }
  | { readonly _tag: "tryReceive" }
  | { readonly _tag: "handle"; readonly succeeds: boolean }
  | { readonly _tag: "interrupt"; readonly call: number }
  | { readonly _tag: "end" }
  | { readonly _tag: "fail" }
  | { readonly _tag: "close" }

interface Inside {
  readonly message: number
  readonly attempt: number
}

interface Sender {
  readonly call: number
  messages: ReadonlyArray<number>
}

interface Receiver {
  readonly call: number
  readonly min: number
  readonly max: number
  readonly handler?: boolean
}

export class Model {
  readonly capacity: number
  readonly overflow: Overflow
  readonly attempts: number
  inside: ReadonlyArray<Inside> = []
  senders: ReadonlyArray<Sender> = []
  receivers: ReadonlyArray<Receiver> = []
  ending: "ended" | "failed" | "closed" | undefined
  /** What became of each call that has returned. */
  readonly outcomes = new Map<number, Outcome>()
  readonly undelivered: Array<string> = []
  sent = 0
  received = 0
  dropped = 0
  redelivered = 0

  constructor(capacity: number, overflow: Overflow, attempts: number) {
    this.capacity = capacity
    this.overflow = overflow
    this.attempts = attempts
  }

  step(call: number, step: Step): void {
    this.apply(call, step)
    for (let more = true; more;) more = this.admit() || this.serve()
  }

  private apply(call: number, step: Step): void {
    switch (step._tag) {
      case "send":
        return this.send(call, step.messages)
      case "trySend": {
        const taken = this.ending === undefined && (this.overflow === "drop_old" || this.room > 0)
        this.outcomes.set(call, { _tag: "offered", taken })
        if (taken) this.put(step.message)
        return
      }
      case "receive":
        this.receivers = [...this.receivers, { call, min: step.min, max: step.max }]
        return
      case "tryReceive": {
        const messages = this.inside.slice(0, 1).map(({ message }) => message)
        this.inside = this.inside.slice(1)
        this.received += messages.length
        this.outcomes.set(call, { _tag: "received", messages })
        return
      }
      case "handle":
        this.receivers = [...this.receivers, { call, min: 1, max: 1, handler: step.succeeds }]
        return
      case "interrupt":
        if (this.outcomes.has(step.call)) return
        this.senders = this.senders.filter((sender) => sender.call !== step.call)
        this.receivers = this.receivers.filter((receiver) => receiver.call !== step.call)
        this.outcomes.set(step.call, { _tag: "interrupted" })
        return
      case "end":
        this.ending ??= "ended"
        return
      case "fail":
        this.ending ??= "failed"
        return
      case "close":
        return this.close()
    }
  }

  private get room(): number {
    return this.senders.length > 0 ? 0 : Math.max(0, this.capacity - this.inside.length)
  }

  private put(message: number): void {
    this.sent++
    if (this.inside.length >= this.capacity && this.overflow === "drop_new") return this.drop(message)
    if (this.inside.length >= this.capacity && this.overflow === "drop_old") {
      const [oldest] = this.inside
      this.inside = this.inside.slice(1)
      if (oldest !== undefined) this.drop(oldest.message)
    }
    this.inside = [...this.inside, { message, attempt: 1 }]
  }

  private drop(message: number): void {
    this.dropped++
    this.undelivered.push(`${message} dropped`)
  }

  private send(call: number, messages: ReadonlyArray<number>): void {
    if (this.ending !== undefined) {
      this.outcomes.set(call, { _tag: "failed", tag: `MailboxClosed ${this.ending}` })
    } else if (this.overflow === "fail" && messages.length > this.room) {
      this.outcomes.set(call, { _tag: "failed", tag: "MailboxFull" })
    } else if (this.overflow === "suspend" && messages.length > 0) {
      this.senders = [...this.senders, { call, messages }]
    } else {
      for (const message of messages) this.put(message)
      this.outcomes.set(call, { _tag: "sent" })
    }
  }

  private admit(): boolean {
    const [sender] = this.senders
    if (sender === undefined) return false
    const fits = sender.messages.slice(0, Math.max(0, this.capacity - this.inside.length))
    for (const message of fits) this.put(message)
    sender.messages = sender.messages.slice(fits.length)
    if (sender.messages.length > 0) return fits.length > 0
    this.senders = this.senders.slice(1)
    this.outcomes.set(sender.call, { _tag: "sent" })
    return true
  }

  private serve(): boolean {
    const drained = this.ending !== undefined && this.inside.length === 0 && this.senders.length === 0
    const receiver = this.receivers.find(({ min }) =>
      drained || this.inside.length >= Math.min(min, this.ending === undefined ? this.capacity : 1)
    )
    if (receiver === undefined) return false
    this.receivers = this.receivers.filter((other) => other !== receiver)
    if (drained) {
      const tag = this.ending === "failed" ? "boom" : `MailboxClosed ${this.ending}`
      this.outcomes.set(receiver.call, { _tag: "failed", tag })
      return true
    }
    const taken = this.inside.slice(0, receiver.max)
    this.inside = this.inside.slice(taken.length)
    const [first] = taken
    if (receiver.handler === undefined || first === undefined) {
      this.received += taken.length
      this.outcomes.set(receiver.call, { _tag: "received", messages: taken.map(({ message }) => message) })
    } else {
      this.outcomes.set(receiver.call, { _tag: "handled", ...first })
      if (receiver.handler) this.received++
      else if (first.attempt < this.attempts) {
        this.redelivered++
        this.inside = [{ ...first, attempt: first.attempt + 1 }, ...this.inside]
      } else this.undelivered.push(`${first.message} failed`)
    }
    return true
  }

  private close(): void {
    const left = [...this.inside.map(({ message }) => message), ...this.senders.flatMap(({ messages }) => messages)]
    for (const message of left) this.undelivered.push(`${message} closed`)
    // Who comes late learns of the end that there was, unless it lost messages.
    if (this.ending === undefined || (this.ending === "ended" && left.length > 0)) this.ending = "closed"
    for (const { call, messages } of this.senders) {
      this.sent += messages.length
      this.outcomes.set(call, { _tag: "failed", tag: `MailboxClosed ${this.ending}` })
    }
    this.inside = []
    this.senders = []
  }
}
