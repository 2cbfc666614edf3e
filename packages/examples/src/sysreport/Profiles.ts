/**
 * Which collectors are run and for how long: data, three of ours and any file of the user's.
 */
import { Collect } from "@effect-orchestra/workflow"
import { Duration, Effect, Schema } from "effect"
import * as Document from "./Document.ts"
import { FocusUnknown } from "./SysreportError.ts"

/** `focus` says how long a category is sampled when `--focus` names it; `duration` is how long the whole may take. */
export const Profile = Schema.Struct({
  ...Collect.Profile.fields,
  duration: Schema.DurationFromString.check(
    Schema.makeFilter(Duration.isGreaterThan(Duration.zero), { expected: "a duration greater than 0" })
  )
})
export type Profile = typeof Profile.Type

const { seconds } = Duration

export const profiles: ReadonlyArray<Profile> = [
  {
    name: "quick",
    duration: seconds(10),
    collectors: [
      "cpu_utilization",
      "memory_info",
      "disk_stats",
      "network_stats",
      "system_info",
      "process_info",
      "biolatency",
      "tcpretrans",
      "opensnoop",
      "oomkill"
    ]
  },
  {
    name: "standard",
    duration: seconds(30),
    collectors: ["all"],
    exclude: ["memleak", "offwaketime", "biostacks", "wakeuptime", "biotop", "tcpstates", "tcplife"],
    focus: { stacktrace: seconds(15), network: seconds(30), disk: seconds(30) }
  },
  {
    name: "deep",
    duration: seconds(60),
    collectors: ["all"],
    focus: { stacktrace: seconds(30), network: seconds(60), disk: seconds(60) }
  }
]

/** One of ours by its name, or that of a file: what has a `/` in it or ends in `.json` is one. */
export const find = (nameOrFile: string) =>
  nameOrFile.includes("/") || nameOrFile.endsWith(".json")
    ? Document.read("profile", nameOrFile, Profile)
    : Collect.profile(profiles, nameOrFile)

/** What a run asks of a profile. */
export interface Request {
  /** Categories; of the tools that cost more than a look at a file only theirs are run. */
  readonly focus: ReadonlyArray<string>
  /** Instead of the profile's, for the whole and for each sample. */
  readonly duration: Duration.Duration | undefined
}

/** How long the collectors of a category look at what they measure. */
export const sampleOf = (profile: Profile, { duration, focus }: Request, category: string): Duration.Duration =>
  duration ?? (focus.includes(category) ? profile.focus?.[category] : undefined) ?? seconds(1)

/** What is left for the programs that a collector asks beside its sample. */
const slack = seconds(15)

/** The collectors of a profile that the request does not rule out, each with the time that its sample needs. */
export const select = Effect.fnUntraced(function*<C extends Collect.Any>(
  collectors: ReadonlyArray<C>,
  profile: Profile,
  request: Request
) {
  const { focus } = request
  // What it names is there, in its own focus too.
  yield* Collect.select(collectors, profile)
  const known = [...new Set(collectors.map(({ category }) => category))]
  const unknown = focus.filter((category) => !known.includes(category))
  if (unknown.length > 0) return yield* new FocusUnknown({ unknown, known })
  const timeOf = (category: string) => Duration.sum(sampleOf(profile, request, category), slack)
  const selected = yield* Collect.select(collectors, {
    ...profile,
    timeout: profile.timeout ?? timeOf(""),
    focus: Object.fromEntries(focus.map((category) => [category, timeOf(category)]))
  })
  return selected.filter(({ category, phase }) => phase === 0 || focus.length === 0 || focus.includes(category))
})

/** After this time what is still missing is missed. */
export const deadlineOf = (profile: Profile, { duration = profile.duration }: Request): Duration.Duration =>
  profile.deadline ?? Duration.sum(duration, seconds(30))
