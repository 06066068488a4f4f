// The version of this program, which is that of its package, and of which build it is.

import manifest from "../package.json" with { type: "json" };

export const VERSION: string = manifest.version;

/** Put in by `bun run build`: the commit that was built. */
declare const BUILD_COMMIT: string | undefined;

/** `veecle-orchestrator 0.1.0 (3f0c1de)`; from source without the commit. */
export function versionLine(): string {
  const build =
    typeof BUILD_COMMIT === "undefined" || BUILD_COMMIT === "" ? "" : ` (${BUILD_COMMIT})`;
  return `veecle-orchestrator ${VERSION}${build}\n`;
}
