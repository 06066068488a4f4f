// What a daemon holds, as a manifest sees it: from the answers to `Info` and `Environment`.

import { isObject } from "../../json.ts";
import type { Present, PresentInstance, PresentLink } from "../../manifest/present.ts";
import type { LinkEnd } from "../../manifest/wanted.ts";
import {
  DEFAULT_LINK_SETTINGS,
  type InstanceId,
  parseInstanceId,
  parseQueueBound,
  parseTarget,
} from "../../model.ts";
import type { Info, LinkInfo, RuntimeInfo } from "../../protocol/info.ts";
import type { Session } from "../session.ts";
import { lastEvents } from "../tail.ts";

/** Events in which the last exit of an instance is looked for. */
const READ_EVENTS = 50;

/** Asks for all that a plan compares. */
export async function presentOf(session: Session): Promise<Present> {
  const info = await session.info();
  const instances: PresentInstance[] = [];
  // One after the other: what has ended takes a connection each, and a daemon has only so many.
  for (const [id, runtime] of Object.entries(info.runtimes)) {
    instances.push(await presentInstance(session, id, runtime));
  }
  return {
    instances,
    links: info.routes.flatMap((link) => presentLink(link, info) ?? []),
  };
}

async function presentInstance(
  session: Session,
  id: InstanceId,
  runtime: RuntimeInfo,
): Promise<PresentInstance> {
  return {
    id,
    path: runtime.binary,
    hash: runtime.hash,
    state: await stateOf(session, id, runtime),
    owner: runtime.owner,
    settings: {
      name: runtime.name,
      args: runtime.args,
      env: runtime.env.length === 0 ? {} : await valuesOf(session, id),
      cwd: runtime.cwd,
      restart: runtime.restart,
      restartDelayMs: runtime.restart_delay_ms,
      stopSignal: runtime.stop_signal,
      stopGraceMs: runtime.stop_grace_ms,
      priority: runtime.priority,
      privileged: runtime.privileged,
    },
  };
}

async function valuesOf(session: Session, id: InstanceId): Promise<Record<string, string>> {
  const values = await session.request({ kind: "Environment", id });
  const texts = isObject(values) ? Object.entries(values) : [];
  return Object.fromEntries(
    texts.filter((pair): pair is [string, string] => typeof pair[1] === "string"),
  );
}

async function stateOf(
  session: Session,
  id: InstanceId,
  { state, exit }: RuntimeInfo,
): Promise<PresentInstance["state"]> {
  if (state === "running" || state === "waiting" || state === "stopping") return "running";
  const hasEndedWell = state === "stopped" && exit !== null && "code" in exit && exit.code === 0;
  if (!hasEndedWell) return "stopped";
  const events = await lastEvents(session, id, READ_EVENTS);
  const exited = events.findLast(({ kind }) => kind === "exited");
  return exited?.detail["stopping"] === true ? "stopped" : "finished";
}

/** Undefined for a link of an instance that is gone meanwhile. */
function presentLink(link: LinkInfo, { runtimes }: Info): PresentLink | undefined {
  const nameOf = (id: string): string | undefined => runtimes[id as InstanceId]?.name;
  const from = link.from === null ? undefined : nameOf(link.from);
  const to = linkEnd(link.to, nameOf);
  if (to === undefined || (link.from !== null && from === undefined)) return undefined;
  const owner = link.owner ?? null;
  const settings = {
    ...DEFAULT_LINK_SETTINGS,
    ...parseQueueBound(link.queue),
    onFull: link.on_full,
    owner,
  };
  return { from, typeName: link.type_name, to, settings, owner };
}

function linkEnd(to: string, nameOf: (id: string) => string | undefined): LinkEnd | undefined {
  if (parseInstanceId(to) !== undefined) {
    const name = nameOf(to);
    return name === undefined ? undefined : { kind: "instance", name };
  }
  const target = parseTarget(to);
  return target?.kind === "remote" ? target : undefined;
}
