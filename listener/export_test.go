package listener

// Statements of the package by name, for the test that prepares them.
var Statements = map[string]string{
	"canary": sqlCanary, "lock": sqlLock, "unlock": sqlUnlock, "take sleepers": sqlTakeSleepers,
	"release sleepers": sqlReleaseSleepers, "unannounced": sqlUnannounced, "holders": sqlHolders, "session": sqlSession,
}
