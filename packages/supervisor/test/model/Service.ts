/**
 * A service of a child of a supervisor within a supervisor, written down naively: each call is looked at again after
 * every change.
 */
export type Step =
  | { readonly _tag: "Offer" | "Drop" | "Stop" | "Revive" | "End" | "Gone" | "Again" | "Quit" | "Resume" | "Call" }
  | { readonly _tag: "Interrupt"; readonly call: number }
  | { readonly _tag: "Pass"; readonly millis: number }

export class Service {
  readonly wait: number
  /** What each call has come to, in the order of the calls. */
  readonly calls: Array<{ readonly since: number; answer: string | undefined }> = []
  private now = 0
  private run = 0
  /** The instance; whether its child is stopped; whether the inner supervisor runs, ends, or is not there. */
  private instance: number | undefined = undefined
  private stopped = false
  private inner: "runs" | "ends" | "absent" = "runs"
  /** Whether the child of the outer supervisor, which is the inner one, is stopped. */
  private quit = false

  constructor(wait: number) {
    this.wait = wait
  }

  /** Whether this can happen now. */
  allows({ _tag }: Step): boolean {
    switch (_tag) {
      case "Offer":
        return this.inner === "runs" && !this.stopped && this.instance === undefined
      case "Drop":
        return this.instance !== undefined
      case "Stop":
        return this.inner === "runs" && !this.stopped
      case "Revive":
        return this.inner === "runs" && this.stopped
      case "End":
        return this.inner === "runs"
      case "Gone":
        return this.inner === "ends"
      case "Again":
        return this.inner === "absent" && !this.quit
      case "Quit":
        return this.inner === "absent" && !this.quit
      case "Resume":
        return this.quit
      default:
        return true
    }
  }

  take(step: Step): void {
    switch (step._tag) {
      case "Offer":
        this.instance = ++this.run
        break
      case "Drop":
        this.instance = undefined
        break
      case "Stop":
        this.instance = undefined
        this.stopped = true
        break
      case "Revive":
        this.stopped = false
        break
      case "End":
        this.inner = "ends"
        this.instance = undefined
        break
      case "Gone":
        this.inner = "absent"
        break
      case "Again":
        this.inner = "runs"
        this.stopped = false
        break
      case "Quit":
        this.quit = true
        break
      case "Resume":
        this.quit = false
        break
      case "Call":
        this.calls.push({ since: this.now, answer: undefined })
        break
      case "Interrupt": {
        const call = this.calls[step.call]
        if (call !== undefined) call.answer ??= "interrupted"
        break
      }
      case "Pass":
        for (let i = 0; i < step.millis; i++) {
          this.now++
          this.look()
        }
    }
    this.look()
  }

  private look(): void {
    for (const call of this.calls) {
      if (call.answer !== undefined) continue
      if (this.instance !== undefined) call.answer = `run ${this.instance}`
      else if (this.quit) call.answer = "/outer/inner is stopped"
      else if (this.inner === "runs" && this.stopped) call.answer = "/outer/inner/db is stopped"
      else if (this.now - call.since >= this.wait) {
        call.answer = this.inner === "runs" ? "/outer/inner/db is restarting" : "/outer/inner is restarting"
      }
    }
  }
}
