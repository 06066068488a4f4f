// The last lines of an instance: what it had to say before it was asked about.

import type { EventInfo, LineInfo } from "../protocol/info.ts";
import type { InstanceId } from "../model.ts";
import { tamed } from "./logs.ts";
import type { Chosen, Session } from "./session.ts";

/** Lines that are shown with a failure. */
const SHOWN_LINES = 8;

/** The last lines of output. */
export async function lastLines(
  session: Session,
  id: InstanceId,
  last: number,
): Promise<LineInfo[]> {
  const client = await session.newClient();
  return Array.fromAsync(client.output({ ids: [id], last })).finally(() => client.close());
}

/** The last events. */
export async function lastEvents(
  session: Session,
  id: InstanceId,
  last: number,
): Promise<EventInfo[]> {
  const client = await session.newClient();
  return Array.fromAsync(client.events({ ids: [id], last })).finally(() => client.close());
}

/** Events in which the last start that somebody asked for is looked for. */
const READ_EVENTS = 50;

/** What an instance has printed last since somebody started it, as a paragraph for standard error. */
export async function lastOutput(session: Session, { id, name }: Chosen): Promise<string> {
  try {
    const events = await lastEvents(session, id, READ_EVENTS);
    const start = events.findLast(
      ({ kind, detail }) => kind === "started" && detail["restart"] === undefined,
    );
    const printed = await lastLines(session, id, SHOWN_LINES);
    const lines = printed.filter(({ time }) => time >= (start?.time ?? 0));
    if (lines.length === 0) return `${name} has printed nothing\n`;
    const { outputIsScreen, reportIsScreen } = session.terminal;
    const isScreen = outputIsScreen || reportIsScreen;
    const shown = lines.map(
      ({ line }) => `  ${isScreen ? tamed(line, session.reportColour) : line}\n`,
    );
    return `last output of ${name}:\n${shown.join("")}`;
  } catch {
    return ""; // what has failed is told already
  }
}
