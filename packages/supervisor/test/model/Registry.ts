/** What a registry holds, as one list that is searched from its beginning each time. */
interface Entry {
  readonly kind: "unique" | "duplicate"
  readonly key: string
  readonly owner: string
  value: number
  live: boolean
}

export class RegistryModel {
  private entries: Array<Entry> = []

  private held(key: string): Entry | undefined {
    return this.entries.find((entry) => entry.kind === "unique" && entry.key === key)
  }

  /** Who holds the name already, if it is another. */
  register(kind: Entry["kind"], key: string, owner: string, value: number): string | undefined {
    const held = kind === "unique" ? this.held(key) : undefined
    if (held === undefined) this.entries.push({ kind, key, owner, value, live: true })
    else if (held.owner !== owner) return held.owner
    else {
      held.value = value
      held.live = true
    }
    return undefined
  }

  unregister(kind: Entry["kind"], key: string, owner: string): void {
    this.entries = this.entries.filter((entry) => entry.kind !== kind || entry.key !== key || entry.owner !== owner)
  }

  /** The new value; undefined when it is not the owner's. */
  update(key: string, owner: string, change: (value: number) => number): number | undefined {
    const held = this.held(key)
    if (held === undefined || held.owner !== owner || !held.live) return undefined
    return held.value = change(held.value)
  }

  /** The run of an owner ended, and another will follow. */
  crash(owner: string): void {
    this.entries = this.entries.filter((entry) => entry.owner !== owner || entry.kind === "unique")
    for (const entry of this.entries) if (entry.owner === owner) entry.live = false
  }

  /** An owner ended for good. */
  end(owner: string): void {
    this.entries = this.entries.filter((entry) => entry.owner !== owner)
  }

  values(kind: Entry["kind"], key: string): ReadonlyArray<number> {
    return this.live(kind).filter((entry) => entry.key === key).map((entry) => entry.value)
  }

  keys(kind: Entry["kind"]): ReadonlyArray<string> {
    return [...new Set(this.live(kind).map((entry) => entry.key))].sort()
  }

  count(kind: Entry["kind"]): number {
    return this.live(kind).length
  }

  /** How many names are held and not served. */
  get restarting(): number {
    return this.entries.filter((entry) => !entry.live).length
  }

  private live(kind: Entry["kind"]): ReadonlyArray<Entry> {
    return this.entries.filter((entry) => entry.kind === kind && entry.live)
  }
}

/** Who is inside each lock and who stands before it, as plain lists. */
export class LockModel {
  private readonly lines = new Map<string, Array<number>>()

  enter(key: string, who: number): void {
    this.lines.set(key, [...this.lines.get(key) ?? [], who])
  }

  /** Out of the lock or out of the line. */
  leave(key: string, who: number): void {
    this.lines.set(key, (this.lines.get(key) ?? []).filter((other) => other !== who))
  }

  inside(key: string): number | undefined {
    return this.lines.get(key)?.[0]
  }

  get locked(): number {
    return [...this.lines.values()].filter((line) => line.length > 0).length
  }
}
