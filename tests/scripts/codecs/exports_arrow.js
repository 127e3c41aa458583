exports.decodeUplink = ({ bytes, fPort }) => ({ data: { first: bytes[0], port: fPort } });
