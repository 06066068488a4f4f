// `logs`: the output of instances, on one clock, and what they print from now on.

import type { LineInfo } from "../protocol/info.ts";
import { showJson } from "../json.ts";
import { escapeText } from "../log.ts";
import { queryOf } from "./query.ts";
import { Reader } from "./reader.ts";
import { nameOf, namesOf, type Session } from "./session.ts";
import { paint, shortName } from "./table.ts";
import type { NameOf } from "./telling.ts";
import { formatMoment, isoTime } from "./words.ts";

/** Colours of names: those that are read well on dark and on light. */
const NAME_STYLES = ["36", "33", "35", "32", "34", "96", "93", "95", "92", "94"];

export async function logs(session: Session): Promise<void> {
  const { values } = session;
  const info = await session.info();
  const chosen = session.chosen(info);
  const names = namesOf(info);
  const shown = chosen.length === 0 ? [...names.keys()] : chosen.map(({ id }) => id);
  const pattern = values.has("--grep") ? new RegExp(values.get("--grep") as string) : undefined;
  const query = queryOf(
    session,
    chosen.map(({ id }) => id),
  );
  const stream = values.get("--stream") as "stdout" | "stderr" | undefined;
  const client = await session.newClient();
  const lines = client.output({ ...query, stream });
  const reader = new Reader(session, client);
  const { columns } = session.terminal;
  const name = nameOf(names);
  const shownName: NameOf = session.isJson ? name : (id) => shortName(name(id), columns);
  const format = lineFormat(session, shown, shownName);
  for await (const batch of lines.batches()) {
    const wanted =
      pattern === undefined ? batch : batch.filter(({ line }) => pattern.test(withoutStyle(line)));
    if (wanted.length > 0) await session.terminal.write(wanted.map(format).join(""));
  }
  if (query.follow) await reader.ended("Lost the orchestrator while following output");
}

/** How a line is printed; of several instances, each behind a name. */
function lineFormat(
  { isJson, colour, terminal, values }: Session,
  ids: readonly string[],
  name: NameOf,
): (line: LineInfo) => string {
  if (isJson) return (line) => `${showJson(lineDocument(line, name))}\n`;
  const width = Math.max(0, ...ids.map((id) => Bun.stringWidth(name(id))));
  const styles = new Map(
    ids.map((id, index) => [id, NAME_STYLES[index % NAME_STYLES.length] as string]),
  );
  const hasTimes = values.has("--times");
  return ({ id, time, stream, line }) => {
    const shown = terminal.outputIsScreen ? tamed(line, colour) : line;
    const text = stream === null ? paint(colour, "2", shown) : shown;
    const moment = hasTimes ? `${paint(colour, "2", formatMoment(time))}  ` : "";
    const before =
      ids.length > 1
        ? `${paint(colour, styles.get(id) ?? "2", `${name(id).padEnd(width)} |`)} `
        : "";
    return `${before}${moment}${text}\n`;
  };
}

/** A line as programs read it. */
export function lineDocument(
  { id, time, stream, line }: LineInfo,
  name: NameOf,
): Record<string, unknown> {
  return { time: isoTime(time), id, name: name(id), stream, line };
}

const STYLE = /(\x1b\[[0-9;:]*m)/;

/** A line on a screen: colours stay, whatever else would drive the terminal is shown as text. */
export function tamed(line: string, colour: boolean): string {
  const parts = line.replace(/\r$/, "").split(STYLE);
  const text = parts.map((part, index) => {
    if (index % 2 === 1) return colour ? part : "";
    return part.split("\t").map(escapeText).join("\t");
  });
  return parts.length > 1 && colour ? `${text.join("")}\x1b[0m` : text.join("");
}

function withoutStyle(line: string): string {
  return line.includes("\x1b") ? Bun.stripANSI(line) : line;
}
