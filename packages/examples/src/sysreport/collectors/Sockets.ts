/**
 * The sockets of TCP: what `ss` tells of them, or what the kernel does where there is no `ss`.
 */
import * as ProcFile from "../ProcFile.ts"

export interface Socket {
  readonly state: "listen" | "established" | "close-wait" | "other"
  readonly local: string
  /** Bytes not read, or of a listening socket the connections not accepted. */
  readonly received: number
  /** Of a listening socket the connections that may wait; `undefined` where that is not told. */
  readonly limit: number | undefined
}

const states: Readonly<Record<string, Socket["state"]>> = {
  "LISTEN": "listen",
  "ESTAB": "established",
  "CLOSE-WAIT": "close-wait",
  "0A": "listen",
  "01": "established",
  "08": "close-wait"
}

/** `ss -H -t -a -n`: state, received, sent, local, peer. The second number of a listening socket is its limit. */
export const parseSs = (text: string): ReadonlyArray<Socket> =>
  ProcFile.lines(text).flatMap((line) => {
    const [name = "", received, sent, local] = ProcFile.words(line)
    const [queued, limit] = [ProcFile.number(received), ProcFile.number(sent)]
    if (queued === undefined || limit === undefined || local === undefined) return []
    const state = states[name] ?? "other"
    return [{ state, local, received: queued, limit: state === "listen" ? limit : undefined }]
  })

/** `/proc/net/tcp` and `tcp6`: addresses and numbers are hexadecimal, and listening sockets do not tell their limit. */
export const parseNetTcp = (text: string): ReadonlyArray<Socket> =>
  ProcFile.lines(text).flatMap((line) => {
    const [, local, , name = "", queues = ""] = ProcFile.words(line)
    const received = ProcFile.hexadecimal(queues.split(":")[1])
    if (local === undefined || received === undefined) return []
    return [{ state: states[name] ?? "other", local, received, limit: undefined }]
  })

const saturated = 65_536

/** Sockets that have what somebody should have taken. */
export const neglected = (sockets: ReadonlyArray<Socket>) => {
  const listening = sockets.filter(({ state }) => state === "listen")
  const known = listening.every(({ limit }) => limit !== undefined)
  return {
    close_wait_count: sockets.filter(({ state }) => state === "close-wait").length,
    recvq_saturated_count:
      sockets.filter(({ received, state }) => state === "established" && received > saturated).length,
    listen_sockets: !known ? undefined : listening.flatMap(({ limit = 0, local, received }) => {
      const fill = limit === 0 ? 0 : 100 * received / limit
      return fill < 50 ? [] : [{ local_addr: local, recv_q: received, send_q: limit, fill_pct: fill }]
    })
  }
}
