// What a daemon holds → a manifest, in TOML, which asks for exactly that.
//
// The order of starting and what makes an instance ready are known to no daemon, so they are missing.

import { isObject, showJson } from "../json.ts";
import { DEFAULT_LINK_SETTINGS, formatQueueBound } from "../model.ts";
import { DEFAULT_PROGRAM, formatDuration } from "../settings.ts";
import { formatKey } from "./fault.ts";
import type { Present, PresentInstance, PresentLink } from "./present.ts";
import type { InstanceShape, LinkShape } from "./shape.ts";
import { formatEnd } from "./wanted.ts";

type Value = string | number | boolean | readonly string[] | Readonly<Record<string, string>>;

/** Some keys of a shape; undefined: the default is meant. */
type Keys<Shape> = { readonly [K in keyof Shape]?: Value | undefined };

/** The text of a manifest for which there is nothing to do. Settings that are the default are left out. */
export function exportManifest({ instances, links }: Present): string {
  const sections = [
    ...instances.map((instance) => {
      return [
        `[instances.${formatKey(instance.settings.name)}]`,
        ...keyLines(instanceKeys(instance)),
      ];
    }),
    ...links.map((link) => ["[[links]]", ...keyLines(linkKeys(link))]),
  ];
  if (sections.length === 0) return "# no instances and no links\n"; // what is empty is refused
  return sections.map((lines) => `${lines.join("\n")}\n`).join("\n");
}

function instanceKeys({ settings, path, hash, state }: PresentInstance): Keys<InstanceShape> {
  const { args, env } = settings;
  const { restart, restartDelayMs, stopSignal, stopGraceMs } = DEFAULT_PROGRAM;
  return {
    path,
    copy: unless(hash !== null, false),
    args: args.length === 0 ? undefined : args,
    env: Object.keys(env).length === 0 ? undefined : env,
    cwd: settings.cwd ?? undefined,
    restart: unless(settings.restart, restart),
    restart_delay: unless(formatDuration(settings.restartDelayMs), formatDuration(restartDelayMs)),
    stop_signal: unless(settings.stopSignal, stopSignal),
    stop_grace: unless(formatDuration(settings.stopGraceMs), formatDuration(stopGraceMs)),
    priority: settings.priority ?? undefined,
    privileged: unless(settings.privileged, false),
    start: unless(state !== "stopped", true),
  };
}

function linkKeys({ from, typeName, to, settings }: PresentLink): Keys<LinkShape> {
  return {
    from,
    type: typeName,
    to: formatEnd(to),
    queue: unless(formatQueueBound(settings), formatQueueBound(DEFAULT_LINK_SETTINGS)),
    on_full: unless(settings.onFull, DEFAULT_LINK_SETTINGS.onFull),
  };
}

function unless<T>(value: T, byDefault: T): T | undefined {
  return value === byDefault ? undefined : value;
}

function keyLines(keys: Readonly<Record<string, Value | undefined>>): string[] {
  return Object.entries(keys).flatMap(([key, value]) => {
    return value === undefined ? [] : `${key} = ${formatValue(value)}`;
  });
}

function formatValue(value: Value): string {
  if (typeof value === "string") return formatText(value);
  if (typeof value !== "object") return String(value);
  if (isList(value)) return `[${value.map(formatText).join(", ")}]`;
  const pairs = Object.entries(value).map(
    ([key, text]) => `${formatKey(key)} = ${formatText(text)}`,
  );
  return `{ ${pairs.join(", ")} }`;
}

function isList(
  value: readonly string[] | Readonly<Record<string, string>>,
): value is readonly string[] {
  return Array.isArray(value);
}

/** A text as TOML spells it, with no `$` that could be taken for a variable. */
function formatText(text: string): string {
  return showJson(text.replaceAll("$", "$$$$"));
}

/** What a terminal would obey and Bun writes as it is; and what could be taken for our mark of it. */
const UNSHOWN = /\\(?=x01)|[\x01\x80-\x9f\p{Bidi_Control}]/gu;

/** A value in YAML that may be shown: its texts drive no terminal. */
export function showYaml(value: unknown): string {
  // A mark that Bun spells as an escape, so that the text gets quotes, and what it stands for.
  const marked = mapTexts(value, (text) =>
    text.replaceAll(UNSHOWN, (character) => {
      return `\x01${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
    }),
  );
  return Bun.YAML.stringify(marked, undefined, 2).replaceAll(/\\x01([0-9a-f]{4})/g, "\\u$1");
}

function mapTexts(value: unknown, change: (text: string) => string): unknown {
  if (typeof value === "string") return change(value);
  if (Array.isArray(value)) return value.map((item) => mapTexts(item, change));
  if (!isObject(value)) return value;
  const entries = Object.entries(value).map(([key, inner]) => [key, mapTexts(inner, change)]);
  return Object.fromEntries(entries);
}
