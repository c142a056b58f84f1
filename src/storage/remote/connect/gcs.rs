//! Google Cloud Storage.

use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey as Key};

use crate::error::Result;
use crate::storage::remote::address::Address;
use crate::storage::remote::connect::{Connected, Patience, refused, transport};
use crate::storage::remote::options::RemoteOptions;

pub(super) fn connect(
    address: &Address,
    options: &RemoteOptions,
    patience: Patience,
) -> Result<Connected> {
    let mut builder = GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(&address.authority)
        .with_retry(patience.retry());
    for (key, value) in transport(options, patience) {
        builder = builder.with_config(Key::Client(key), value);
    }
    if let Some(endpoint) = options.endpoint() {
        builder = builder.with_base_url(endpoint);
    }
    if let Some(anonymous) = options.text("anonymous") {
        builder = builder.with_config(Key::SkipSignature, anonymous);
    }
    if let Some(key) = options.secret("service_account_key") {
        builder = builder.with_service_account_key(key);
    }
    if let Some(token) = options.secret("bearer_token") {
        builder = builder.with_bearer_token(token);
    }
    let mut secrets = options.secrets();
    secrets.extend(builder.get_config_value(&Key::ServiceAccountKey));
    let store = builder.build().map_err(|error| refused(address, &error, &secrets))?;
    Ok(Connected::numbered(store, secrets))
}
