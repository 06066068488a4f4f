// Inputs that broke a rule once, shortened: surface, seed, bytes in base64. They must never again.

export const FOUND: readonly (readonly [surface: string, seed: number, input: string])[] = [
  ["manifest-json", 2651, "eyIiOiIiLCIiOlsiIl0sIiI6IiIiXHVlIiwK"],
  ["words", 133667, "OTA3MTk5MjUuNW0="],
];
