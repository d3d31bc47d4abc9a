// The little of a browser that the address needs.
Object.assign(globalThis, { location: { hash: '', pathname: '/', search: '' }, addEventListener: () => {} })
