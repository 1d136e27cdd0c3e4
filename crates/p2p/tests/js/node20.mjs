// A dependency of js-libp2p uses this function, which Node.js has from version 22 on. Imported before everything else.
Promise.withResolvers ??= function () {
  const all = {}
  all.promise = new this((resolve, reject) => Object.assign(all, { resolve, reject }))
  return all
}
