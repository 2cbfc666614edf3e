/**
 * What the report could draw on: sources that are there, and programs.
 */
import { Config, Effect, FileSystem, Option, Path } from "effect"
import { Roots } from "./Roots.ts"

const programs = ["df", "dmesg", "ss", "ethtool", "nvidia-smi"]

/** Sources under the roots; the programs only where the report is of this machine. */
export const find = Effect.fnUntraced(function*(ofThisMachine: boolean) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const { proc, sys } = yield* Roots
  const sources = {
    procfs: `${proc}/stat`,
    psi: `${proc}/pressure`,
    sysfs: `${sys}/class`,
    cgroup_v2: `${sys}/fs/cgroup/cgroup.controllers`,
    numa: `${sys}/devices/system/node`
  }
  const isThere = (file: string) => Effect.orElseSucceed(fs.exists(file), () => false)
  const directories = yield* Config.String("PATH").pipe(
    Config.map((all) => all.split(":").filter((directory) => directory !== "")),
    Effect.option,
    Effect.map(Option.getOrElse(() => []))
  )
  const isRunnable = (program: string) =>
    Effect.map(
      Effect.forEach(directories, (directory) => isThere(path.join(directory, program))),
      (found) => found.includes(true)
    )
  return [
    ...yield* Effect.filter(Object.entries(sources), ([, file]) => isThere(file)).pipe(
      Effect.map((found) => found.map(([name]) => name))
    ),
    ...ofThisMachine ? yield* Effect.filter(programs, isRunnable) : []
  ]
})
