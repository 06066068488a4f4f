// Carries out a parsed command: requests to the daemon, answers on standard output.

import { showJson } from "../json.ts";
import { escapeText } from "../log.ts";
import {
  formatTarget,
  type InstanceId,
  type LinkKey,
  ON_FULL,
  parsePriority,
  parseQueueBound,
} from "../model.ts";
import { ps } from "./ps.ts";
import { everyInstance, instanceDocument, linkDocument, type Session } from "./session.ts";
import type { CommandName } from "./surface.ts";
import { paint } from "./table.ts";
import { VERSION } from "../version.ts";
import { count, listed } from "./words.ts";

/** Every command: does its work, prints its answer, and may return an exit code other than 0. */
export const RUN: Readonly<Record<CommandName, (session: Session) => Promise<number | void>>> = {
  version: async (session) => {
    const version = await session.request({ kind: "Version" });
    const daemon = String(version);
    await session.answer(
      { daemon, client: VERSION },
      () => `server version: ${escapeText(daemon)}\n`,
    );
  },
  "runtime add": async (session) => (await import("./add.ts")).add(session),
  "runtime start": async (session) => {
    const id = await session.instance("ID");
    const priority = parsePriority(session.values.get("--priority") ?? "");
    await session.requestOf(id, { kind: "Start", id, priority });
    await done(session, "started", id);
  },
  "runtime stop": async (session) => {
    const id = await session.instance("ID");
    await session.requestOf(id, { kind: "Stop", id });
    await done(session, "stopped", id);
  },
  "runtime remove": async (session) => {
    const id = await session.instance("ID");
    await session.requestOf(id, { kind: "Remove", id });
    await done(session, "removed", id);
  },
  "runtime list": async (session) => {
    const info = await session.info();
    const { formatRuntimes } = await import("./print.ts");
    const instances = everyInstance(info).map(instanceDocument);
    await session.answer({ instances }, () =>
      session.isQuiet
        ? Object.keys(info.runtimes)
            .map((id) => `${id}\n`)
            .join("")
        : formatRuntimes(info, session.colour, session.terminal.columns),
    );
  },
  "runtime stdout": follow,
  "link add": async (session) => {
    const link = await linkKey(session);
    const { values } = session;
    const onFull = ON_FULL.find((policy) => policy === values.get("--on-full"));
    const settings = {
      ...parseQueueBound(values.get("--queue") ?? ""),
      ...(onFull === undefined ? {} : { onFull }),
    };
    await session.request({ kind: "Link", link, settings });
    await answerLink(session, link, "linked", "to");
  },
  "link remove": async (session) => {
    const link = await linkKey(session);
    await session.request({ kind: "Unlink", link });
    await answerLink(session, link, "unlinked", "from");
  },
  "link list": async (session) => {
    const info = await session.info();
    const { formatLinks, peerNotes } = await import("./print.ts");
    const { isJson, isQuiet, terminal } = session;
    const links = info.routes.map(linkDocument);
    await session.answer({ links }, () =>
      formatLinks(info, session.colour, terminal.outputIsScreen ? terminal : undefined),
    );
    if (isJson || isQuiet) return;
    const notes = peerNotes(info, terminal.now(), terminal.reportIsScreen);
    for (const note of notes)
      terminal.report(`${paint(session.reportColour, "33", "note:")} ${note}\n`);
  },
  clear,
  ps,
  status: async (session) => (await import("./status.ts")).status(session),
  why: async (session) => (await import("./why.ts")).why(session),
  top: async (session) => (await import("./top.ts")).top(session),
  start: async (session) => (await import("./steer.ts")).start(session),
  stop: async (session) => (await import("./steer.ts")).stop(session),
  restart: async (session) => (await import("./steer.ts")).restart(session),
  wait: async (session) => (await import("./wait.ts")).wait(session),
  logs: async (session) => (await import("./logs.ts")).logs(session),
  events: async (session) => (await import("./events.ts")).events(session),
  doctor: async (session) => (await import("./doctor.ts")).doctor(session),
  completion: async (session) => (await import("./completion.ts")).completion(session),
  "token new": async (session) => (await import("./token.ts")).newToken(session),
  up: async (session) => (await import("./manifest/up.ts")).up(session),
  plan: async (session) => (await import("./manifest/up.ts")).plan(session),
  down: async (session) => (await import("./manifest/up.ts")).down(session),
  export: async (session) => (await import("./manifest/export.ts")).exportAll(session),
};

function done(session: Session, verb: string, id: InstanceId): Promise<void> {
  return session.answer({ id }, () => (session.isQuiet ? `${id}\n` : `${verb} instance ${id}\n`));
}

function answerLink(
  session: Session,
  { from, typeName, to }: LinkKey,
  verb: string,
  preposition: string,
): Promise<void> {
  return session.answer(
    { type_name: typeName, from: from ?? null, to: formatTarget(to) },
    () => `${verb} ${escapeText(typeName)} ${preposition} ${formatTarget(to)}\n`,
  );
}

async function linkKey(session: Session): Promise<LinkKey> {
  const { values, terminal } = session;
  const from = values.has("--from") ? await session.instance("--from") : undefined;
  const { findTarget } = await import("./resolve.ts");
  const to = await findTarget(
    values.get("--to") as string,
    () => session.named(),
    terminal.deadlines.answerMs,
  );
  return { from, typeName: values.get("--type") as string, to };
}

/** Raw bytes, a newline after each line, until the instance is removed or nobody reads. */
async function follow(session: Session): Promise<void> {
  const id = await session.instance("ID");
  const client = await session.client();
  const stream = client.follow(id);
  const { Reader } = await import("./reader.ts");
  const reader = new Reader(session, client);
  const newline = Buffer.from("\n");
  for await (const batch of stream.batches()) {
    const bytes = session.isJson
      ? batch.map((line) => `${showJson({ line: Buffer.from(line).toString() })}\n`).join("")
      : Buffer.concat(batch.flatMap((line) => [line, newline]));
    await session.terminal.write(bytes);
  }
  await reader.ended("Lost the orchestrator while following the output");
}

async function clear(session: Session): Promise<number> {
  const { terminal, values } = session;
  if (terminal.canAsk && !values.has("--yes")) {
    const info = await session.info();
    const instances = everyInstance(info);
    const links = info.routes.length;
    if (instances.length > 0 || links > 0) {
      const busy = instances.filter(({ runtime }) => runtime.state !== "stopped");
      const names = busy.length === 0 ? "" : `these run: ${listed(busy, terminal.columns)}\n`;
      terminal.report(
        `${names}This stops ${count(busy.length, "instance")} and removes ` +
          `${count(instances.length, "instance")} and ${count(links, "link")}.\n`,
      );
      const answer = await terminal.ask("Continue? [y/N] ");
      if (!/^y(es)?$/i.test(answer)) {
        terminal.report("nothing was cleared\n");
        return 1;
      }
    }
  }
  await session.request({ kind: "Clear" });
  await session.answer({ cleared: true }, () => "cleared orchestrator state\n");
  return 0;
}
