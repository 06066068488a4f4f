// The answer to `Info` as JSON: made of what every instance tells of itself, in pieces.

import type { Host } from "../host.ts";
import type { Instance } from "../instance.ts";
import type { PeerReceiver } from "../peer.ts";
import { JsonPieces } from "../protocol.ts";
import type { Info, LinkInfo } from "../protocol/info.ts";
import { VERSION } from "../version.ts";
import type { TelemetryExporter } from "../telemetry.ts";

const HEAD = Buffer.from('{"runtimes":{');

/** Of a thousand instances most are as they were at the last answer, and tell the same bytes. */
export function encodeInfo(
  instances: readonly Instance[],
  routes: readonly LinkInfo[],
  telemetry: TelemetryExporter | undefined,
  receiver: PeerReceiver,
  host: Pick<Host, "wallMs" | "now">,
): JsonPieces {
  const shift = host.wallMs() - host.now();
  const toWall = (ms: number): number => Math.round(ms + shift);
  const runtimes = instances.map((instance) => instance.infoMember(toWall));
  runtimes[0] = runtimes[0]?.subarray(1) ?? Buffer.alloc(0); // no comma before the first
  const links: Record<string, string[]> = {};
  for (const { type_name, to } of routes) {
    const targets = Object.hasOwn(links, type_name) ? links[type_name] : undefined;
    if (targets === undefined) define(links, type_name, [to]);
    else if (!targets.includes(to)) targets.push(to);
  }
  const others: Omit<Info, "runtimes"> = {
    links,
    routes,
    telemetry:
      telemetry === undefined
        ? null
        : { sent: telemetry.sent, dropped: telemetry.dropped, queued: telemetry.queued },
    peers: {
      received: receiver.source.received,
      unlinked: receiver.source.unlinked,
      refused: receiver.source.refused,
      strangers: receiver.strangers,
    },
    pid: process.pid,
    version: VERSION,
    time: Math.round(host.wallMs()),
  };
  const tail = Buffer.from(`},${JSON.stringify(others).slice(1)}`);
  return new JsonPieces([HEAD, ...runtimes, tail]);
}

/** Sets a key as data, whatever it is called; a plain assignment to `__proto__` would not. */
function define(object: Record<string, string[]>, key: string, value: string[]): void {
  Object.defineProperty(object, key, { value, enumerable: true, writable: true });
}
