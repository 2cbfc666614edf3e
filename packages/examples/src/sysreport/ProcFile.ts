/**
 * The few shapes that the files of the kernel have.
 */

/** A decimal number that is all of the text. Numbers of the kernel have 20 digits at most. */
export const number = (text: string | undefined): number | undefined =>
  text !== undefined && /^-?\d{1,20}(\.\d+)?$/.test(text) ? Number(text) : undefined

/** The number of a processor, a node, a process. */
export const index = (text: string | undefined): number | undefined =>
  text !== undefined && /^\d{1,10}$/.test(text) ? Number(text) : undefined

/** A hexadecimal number without a prefix. */
export const hexadecimal = (text: string | undefined): number | undefined =>
  text !== undefined && /^[0-9a-f]{1,16}$/i.test(text) ? Number.parseInt(text, 16) : undefined

/** The lines of a text, without those that are blank. */
export const lines = (text: string): ReadonlyArray<string> => text.split("\n").filter((line) => line.trim() !== "")

export const words = (line: string): ReadonlyArray<string> => line.trim().split(/\s+/)

/** Lines of a name and a number: `pgfault 12`, `MemTotal:  12 kB`, `Node 0 MemFree: 12 kB`. What follows is dropped. */
export const counters = (text: string): ReadonlyMap<string, number> => {
  const found = new Map<string, number>()
  for (const line of lines(text)) {
    const [, name, value] = /^(?:Node \d+ )?(\S+?):?\s+(\d{1,20})\b/.exec(line.trim()) ?? []
    if (name !== undefined && value !== undefined) found.set(name, Number(value))
  }
  return found
}

/** Two lines for each table, names and numbers, both beginning with the name of the table: `net/snmp`, `net/netstat`. */
export const tables = (text: string): ReadonlyMap<string, ReadonlyMap<string, number>> => {
  const found = new Map<string, ReadonlyMap<string, number>>()
  const all = lines(text)
  for (let i = 0; i + 1 < all.length; i += 2) {
    const [table, ...names] = words(all[i] ?? "")
    const [same, ...values] = words(all[i + 1] ?? "")
    if (table === undefined || table !== same) continue
    found.set(
      table.replace(":", ""),
      new Map(names.flatMap((name, at) => {
        const value = number(values[at])
        return value === undefined ? [] : [[name, value]]
      }))
    )
  }
  return found
}

/** Percent of the last 10 and 60 seconds in which some, or all, tasks waited for what the file is about. */
export const pressure = (text: string | undefined) => {
  const share = (who: string, window: number) =>
    number(new RegExp(`^${who} .*avg${window}=([\\d.]+)`, "m").exec(text ?? "")?.[1])
  return { some10: share("some", 10), some60: share("some", 60), full10: share("full", 10), full60: share("full", 60) }
}

/** The word in brackets of those that could be chosen: `always [madvise] never`. */
export const chosen = (text: string | undefined): string | undefined => /\[([^\]]+)\]/.exec(text ?? "")?.[1]

/** Bytes of a number of kibibytes. */
export const kibibytes = (count: number | undefined): number | undefined =>
  count === undefined ? undefined : count * 1024

type Known<Fields> =
  & { readonly [Name in keyof Fields as undefined extends Fields[Name] ? never : Name]: Fields[Name] }
  & {
    readonly [Name in keyof Fields as undefined extends Fields[Name] ? Name : never]?: Exclude<Fields[Name], undefined>
  }

/** The fields that are known: what is `undefined` is left out. */
export const known = <Fields extends object>(fields: Fields): Known<Fields> =>
  // `fromEntries` forgets the names that its entries had.
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as Known<Fields>
