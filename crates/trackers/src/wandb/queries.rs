//! What W&B's own client asks of its server, in GraphQL.

/// A query.
#[derive(Debug, Clone, Copy)]
pub(super) struct Query {
    pub name: &'static str,
    pub text: &'static str,
    /// What it is about, for messages.
    pub purpose: &'static str,
}

impl Query {
    pub(super) const VIEWER: Query =
        Query { name: "Viewer", text: "query Viewer { viewer { id entity username } }", purpose: "the key" };

    pub(super) const STATUS: Query = Query {
        name: "RunResumeStatus",
        text: "query RunResumeStatus($project: String, $entity: String, $name: String!) { \
            model(name: $project, entityName: $entity) { id name bucket(name: $name, missingOk: true) { \
            id name summaryMetrics logLineCount historyLineCount eventsLineCount historyTail config } } }",
        purpose: "the project",
    };

    pub(super) const UPSERT: Query = Query {
        name: "UpsertBucket",
        text: "mutation UpsertBucket($name: String, $project: String, $entity: String, $groupName: String, \
            $displayName: String, $notes: String, $commit: String, $config: JSONString, $host: String, $repo: String, \
            $jobType: String, $sweep: String, $tags: [String!]) { upsertBucket(input: {name: $name, \
            groupName: $groupName, modelName: $project, entityName: $entity, displayName: $displayName, notes: $notes, \
            config: $config, commit: $commit, host: $host, jobRepo: $repo, jobType: $jobType, sweep: $sweep, tags: $tags}) \
            { bucket { id name displayName project { id name entity { id name } } } inserted } }",
        purpose: "the run",
    };

    pub(super) const RUN_FILES: Query = Query {
        name: "CreateRunFiles",
        text: "mutation CreateRunFiles($entity: String!, $project: String!, $run: String!, $files: [String!]!) { \
            createRunFiles(input: {entityName: $entity, projectName: $project, runName: $run, files: $files}) { \
            runID uploadHeaders files { name uploadUrl } } }",
        purpose: "files",
    };

    pub(super) const ARTIFACT: Query = Query {
        name: "CreateArtifact",
        text: "mutation CreateArtifact($input: CreateArtifactInput!) { createArtifact(input: $input) { \
            artifact { id state } } }",
        purpose: "an artifact",
    };

    pub(super) const MANIFEST: Query = Query {
        name: "CreateArtifactManifest",
        text: "mutation CreateArtifactManifest($artifactID: ID!, $name: String!, $digest: String!, $entityName: String!, \
            $projectName: String!, $runName: String!, $manifestType: ArtifactManifestType!, $includeUpload: Boolean!) { \
            createArtifactManifest(input: {artifactID: $artifactID, name: $name, digest: $digest, \
            entityName: $entityName, projectName: $projectName, runName: $runName, type: $manifestType}) { \
            artifactManifest { id file { id uploadUrl @include(if: $includeUpload) \
            uploadHeaders @include(if: $includeUpload) } } } }",
        purpose: "an artifact",
    };

    pub(super) const ARTIFACT_FILES: Query = Query {
        name: "CreateArtifactFiles",
        text: "mutation CreateArtifactFiles($input: CreateArtifactFilesInput!) { createArtifactFiles(input: $input) { \
            files { edges { node { storagePath uploadUrl uploadHeaders artifact { id } } } } } }",
        purpose: "the files of an artifact",
    };

    pub(super) const COMMIT: Query = Query {
        name: "CommitArtifact",
        text: "mutation CommitArtifact($artifactID: ID!) { commitArtifact(input: {artifactID: $artifactID}) { \
            artifact { id digest } } }",
        purpose: "an artifact",
    };
}
