// A plan as lines for people: what is added, changed, removed, and what stays as it is.

import { DEFAULT_LINK_SETTINGS, formatQueueBound } from "../model.ts";
import { quote } from "./fault.ts";
import type { Conflict, InstanceChange, LinkChange, Plan } from "./plan.ts";
import type { Difference } from "./present.ts";
import type { NamedLink, WantedInstance } from "./wanted.ts";

/** One line for each instance and link: `+ add instance ping (/opt/ping)`. */
export function formatPlan({ instances, links, owner }: Plan): string[] {
  return [...instances.map(instanceLine), ...links.map((change) => linkLine(change, owner))];
}

function instanceLine(change: InstanceChange): string {
  const what = `instance ${change.name}`;
  switch (change.kind) {
    case "add":
      return `+ add ${what} (${instanceFacts(change.wanted).join(", ")})`;
    case "remove":
      return `- remove ${what} (${change.present.state})`;
    case "same":
      return `= same ${what}`;
    case "conflict":
      return conflictLine(what, change);
    case "change": {
      if (change.differences.every(({ key }) => key === "start")) {
        return `~ start ${what} (${change.present.state})`;
      }
      const line = `~ change ${what}: ${formatDifferences(change.differences)}`;
      return change.restart ? `${line} (restart)` : line;
    }
  }
}

function linkLine(change: LinkChange, owner: string): string {
  const what = `link ${change.name}`;
  switch (change.kind) {
    case "add": {
      const facts = linkFacts(change.wanted);
      return `+ add ${what}${facts.length === 0 ? "" : ` (${facts.join(", ")})`}`;
    }
    case "remove": {
      const isForeign = change.present.owner !== owner;
      return `- remove ${what}${isForeign ? ` (of ${formatOwner(change.present.owner)})` : ""}`;
    }
    case "same":
      return `= same ${what}`;
    case "conflict":
      return conflictLine(what, change);
    case "change":
      return `~ change ${what}: ${formatDifferences(change.differences)}`;
  }
}

function conflictLine(what: string, { owner, differences }: Conflict): string {
  const reason = `it belongs to ${formatOwner(owner)}, and differs`;
  return `! cannot change ${what}: ${reason}: ${formatDifferences(differences)}`;
}

function formatOwner(owner: string | null): string {
  return owner === null ? "no manifest" : quote(owner);
}

function formatDifferences(differences: readonly Difference[]): string {
  return differences.map(({ key, text }) => `${key} ${text}`).join(", ");
}

function instanceFacts({ path, copy, start, settings }: WantedInstance): string[] {
  return [
    path,
    ...(copy ? ["copy"] : []),
    ...(settings.privileged ? ["privileged"] : []),
    ...(start ? [] : ["not started"]),
  ];
}

function linkFacts({ settings }: NamedLink): string[] {
  const { onFull } = settings;
  const queue = formatQueueBound(settings);
  return [
    ...(queue === formatQueueBound(DEFAULT_LINK_SETTINGS) ? [] : [`queue ${queue}`]),
    ...(onFull === DEFAULT_LINK_SETTINGS.onFull ? [] : [onFull]),
  ];
}
